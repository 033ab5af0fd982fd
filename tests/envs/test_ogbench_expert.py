"""The package's oracles as a policy."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("ogbench")

import stable_worldmodel as swm
from stable_worldmodel.envs.ogbench import CubeEnv, ExpertPolicy, SceneEnv
from stable_worldmodel.errors import ContractError


def arrivals(env: object, policy: ExpertPolicy, seed: int, steps: int = 200) -> tuple[int, list[np.ndarray]]:
    """How often a target was reached in an episode, and its states."""
    policy.set_env(env)
    _, info = env.reset(seed=seed)  # type: ignore[attr-defined]
    reached, before, states = 0, False, []
    for step in range(steps):
        info = env.step(policy.get_action({**info, "step_idx": step}))[4]  # type: ignore[attr-defined]
        reached += info["success"] and not before
        before = info["success"]
        states.append(info["state"])
    return reached, states


@pytest.mark.slow
@pytest.mark.parametrize("cls", [CubeEnv, SceneEnv])
@pytest.mark.parametrize("kind", ["markov_oracle", "plan_oracle"])
def test_oracles_reach_one_target_after_another(cls: type, kind: str) -> None:
    env = cls(mode="data_collection", terminate_at_goal=False)
    assert arrivals(env, ExpertPolicy(kind, seed=0), seed=0)[0] >= 2


def test_an_episode_is_a_function_of_its_seed() -> None:
    episodes = []
    for global_seed in (1, 2):
        np.random.seed(global_seed)  # noqa: NPY002
        env = CubeEnv(mode="data_collection", terminate_at_goal=False)
        episodes.append(arrivals(env, ExpertPolicy(seed=4, p_random_action=0.1), seed=5, steps=120)[1])
    np.testing.assert_array_equal(*episodes)


def test_a_world_is_driven() -> None:
    world = swm.World("swm/OGBCube-v0", 2, (16, 16), max_episode_steps=20, mode="data_collection")
    world.set_policy(ExpertPolicy(seed=0))
    world.reset(seed=0)
    for _ in range(5):
        world.step()
    world.close()


def test_tasks_have_no_oracle() -> None:
    with pytest.raises(ContractError, match="data_collection"):
        ExpertPolicy().set_env(CubeEnv())


@pytest.mark.parametrize(
    "kwargs", [{"policy_type": "human"}, {"action_noise": -1.0}, {"p_random_action": 2.0}, {"min_norm": -0.1}]
)
def test_bad_arguments_are_refused(kwargs: dict) -> None:
    with pytest.raises(ContractError):
        ExpertPolicy(**kwargs)
