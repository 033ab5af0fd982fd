"""Policies with LeRobot's interface, driven by World."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium.vector import SyncVectorEnv
from lerobot_toy_policies import Chunky, OneQueue
from lerobot_toys import factories

import stable_worldmodel as swm
from stable_worldmodel.errors import ContractError, MissingDependencyError, MissingKeyError
from stable_worldmodel.lerobot import FeatureType, LeRobotPolicy, NormalizationMode, PolicyFeature
from stable_worldmodel.lerobot.processors import Normalize, Pipeline

INPUTS = ("observation.state", "observation.environment_state")


def world(count: int, **kwargs) -> swm.World:
    return swm.World(SyncVectorEnv(factories(count, **kwargs)), goal_conditioned=False, verbose=0)


def run(policy: LeRobotPolicy, count: int, episodes: int = 9, **options) -> swm.world.Results:
    with world(count) as envs:
        envs.set_policy(policy)
        return envs.evaluate(episodes=episodes, seed=0, **options)


@pytest.mark.parametrize("kind", [Chunky, OneQueue])
@pytest.mark.parametrize("n_action_steps", [1, 3])
def test_policy_reaches_the_goal_for_any_number_of_envs(kind: type, n_action_steps: int) -> None:
    one, four = (run(LeRobotPolicy(kind(n_action_steps)), count) for count in (1, 4))
    assert one["success_rate"] == 100
    np.testing.assert_array_equal(one["episode_returns"], four["episode_returns"])
    np.testing.assert_array_equal(one["episode_lengths"], four["episode_lengths"])


def test_queue_is_per_env_where_the_policy_gives_chunks() -> None:
    policy = LeRobotPolicy(Chunky(3))
    assert (policy.queue, policy.reset_mode) == ("chunks", "auto")
    lengths = run(policy, 4)["episode_lengths"]
    predicted = sum(policy.policy.calls)
    assert predicted == sum(-(-length // 3) for length in lengths.tolist())


def test_policy_with_one_queue_keeps_apart_what_began_at_different_times() -> None:
    policy = LeRobotPolicy(OneQueue(3))
    assert (policy.queue, policy.reset_mode) == ("policy", "batches")
    assert run(policy, 4, reset_mode="auto")["success_rate"] == 100


def test_batches_need_no_copy_and_one_call_per_step() -> None:
    policy = LeRobotPolicy(OneQueue(1))
    lengths = run(policy, 4, episodes=8)["episode_lengths"]  # World asks the policy how episodes are to start
    assert policy.policy.calls == [4] * int(lengths[:4].max() + lengths[4:].max())


def test_copies_share_weights() -> None:
    policy = LeRobotPolicy(OneQueue(3))
    with world(3) as envs:
        envs.set_policy(policy)
        envs.reset(seed=0)
        envs.step()
        envs.stepper.reset([0, 1, 2], mask=np.array([False, True, False]))
        envs.step()
        own = [cohort.policy for cohort in policy._cohorts]
        assert own[0] is policy.policy
        assert own[1] is not policy.policy
        assert own[1].gain is policy.policy.gain
        assert [cohort.rows.tolist() for cohort in policy._cohorts] == [[0, 1, 2], [1]]


def test_random_policy_repeats_its_episodes_and_leaves_torch_alone() -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    first = run(LeRobotPolicy(Chunky(2, noise=0.3)), 3)
    assert torch.equal(before, torch.get_rng_state())
    torch.randn(3)
    second = run(LeRobotPolicy(Chunky(2, noise=0.3)), 3)
    other = run(LeRobotPolicy(Chunky(2, noise=0.3), seed=1), 3)
    np.testing.assert_array_equal(first["episode_returns"], second["episode_returns"])
    assert (first["episode_returns"] != other["episode_returns"]).any()


def test_processors_are_called_in_order_with_the_task() -> None:
    seen = []

    def note(name):
        def step(batch):
            seen.append((name, sorted(batch) if isinstance(batch, dict) else tuple(batch.shape)))
            return batch

        return step

    names = ("env_preprocessor", "preprocessor", "postprocessor", "env_postprocessor")
    policy = LeRobotPolicy(Chunky(1), **{name: note(name) for name in names})
    with world(2) as envs:
        envs.set_policy(policy)
        envs.reset(seed=0)
        envs.step()
    batch = ["observation.environment_state", "observation.image", "observation.state", "task"]
    assert seen == [
        ("env_preprocessor", batch),
        ("preprocessor", batch),
        ("postprocessor", (2, 1)),
        ("env_postprocessor", ["action"]),
    ]
    assert policy.policy.batches[0]["task"] == ["Please reach."] * 2
    assert policy.policy.batches[0]["observation.image"].shape == (2, 3, 8, 10)


class _Straight(Chunky):
    """Goes to the goal in one step, however long, in the units it is given."""

    def predict_action_chunk(self, batch):
        self.batches.append(batch)
        step = batch["observation.environment_state"] - batch["observation.state"]
        return torch.stack([step, torch.zeros_like(step)], dim=1)


@pytest.mark.parametrize("queue", ["chunks", "policy"])
def test_normalising_processors_change_units_and_nothing_else(queue: str) -> None:
    kinds = {"observation.state": "STATE", "observation.environment_state": "ENV", "action": "ACTION"}
    known = {name: PolicyFeature(FeatureType(kind), (1,)) for name, kind in kinds.items()}
    modes = {
        "STATE": NormalizationMode.MEAN_STD,
        "ENV": NormalizationMode.MEAN_STD,
        "ACTION": NormalizationMode.MIN_MAX,
    }
    scale = {"mean": torch.tensor([0.5]), "std": torch.tensor([4.0])}
    stats = {**dict.fromkeys(INPUTS, scale), "action": {"min": torch.tensor([-4.0]), "max": torch.tensor([4.0])}}
    pre = Pipeline([Normalize(known, modes, stats)])
    post = Pipeline([Normalize(known, modes, stats, inverse=True)])
    plain = run(LeRobotPolicy(_Straight(2), queue=queue), 3)
    scaled = LeRobotPolicy(_Straight(2), preprocessor=pre, postprocessor=post, queue=queue)
    results = run(scaled, 3)
    np.testing.assert_allclose(results["episode_returns"], plain["episode_returns"], rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(results["episode_lengths"], plain["episode_lengths"])
    begun = scaled.policy.batches[0]["observation.state"]
    np.testing.assert_allclose(begun.numpy(), -0.125, rtol=1e-6)  # envs start at 0


def features(**shapes: tuple[int, ...]) -> dict[str, PolicyFeature]:
    return {
        f"observation.{name.replace('__', '.')}": PolicyFeature(
            FeatureType.VISUAL if len(shape) == 3 else FeatureType.STATE, shape
        )
        for name, shape in shapes.items()
    }


def test_declared_features_decide_what_is_read() -> None:
    wanted = features(state=(1,), environment_state=(1,), images__top=(3, 8, 10))
    policy = LeRobotPolicy(Chunky(1, input_features=wanted), rename_map={"observation.image": "observation.images.top"})
    with world(1) as envs:
        envs.set_policy(policy)
        envs.reset(seed=0)
        envs.step()
    assert set(policy.policy.batches[0]) == {*wanted, "task"}


def test_missing_or_misshapen_features_are_named() -> None:
    for wanted, error, message in (
        (features(images__wrist=(3, 8, 10)), MissingKeyError, r"observation\.images\.wrist.*observation\.image"),
        (features(state=(4,)), ContractError, r"observation\.state.*expects \(4,\)"),
        (features(image=(3, 96, 96)), ContractError, r"\(3, 8, 10\).*expects \(3, 96, 96\)"),
    ):
        with world(1) as envs:
            envs.set_policy(LeRobotPolicy(Chunky(1, input_features=wanted)))
            envs.reset(seed=0)
            with pytest.raises(error, match=message):
                envs.step()


class _Odd(Chunky):
    def __init__(self, output):
        super().__init__(1)
        self.output = output

    def predict_action_chunk(self, batch):
        return self.output


@pytest.mark.parametrize("output", [torch.zeros(2, 1), torch.zeros(3, 1, 1), np.zeros((2, 1, 1)), torch.zeros(2, 1, 5)])
def test_actions_of_the_wrong_shape_are_refused(output) -> None:
    with world(2) as envs:
        envs.set_policy(LeRobotPolicy(_Odd(output)))
        envs.reset(seed=0)
        with pytest.raises(ContractError, match=r"expected"):
            envs.step()


def test_temporal_ensembling_stays_with_the_policy() -> None:
    policy = Chunky(3)
    policy.config.temporal_ensemble_coeff = 0.01
    assert LeRobotPolicy(policy).queue == "policy"


def test_what_is_no_policy_is_refused() -> None:
    with pytest.raises(TypeError, match="lacks select_action"):
        LeRobotPolicy(object())
    with pytest.raises(ContractError, match="queue='both'"):
        LeRobotPolicy(Chunky(), queue="both")


def test_pretrained_networks_name_the_package_they_need(tmp_path) -> None:
    pytest.importorskip("torch")
    try:
        import lerobot.policies  # noqa: F401
    except ImportError:
        with pytest.raises(MissingDependencyError, match=r"pip install 'lerobot"):
            LeRobotPolicy(str(tmp_path))
    else:
        pytest.skip("lerobot is installed")


def test_package_lerobot_is_imported_by_one_module_only() -> None:
    found = []
    for file in Path(swm.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
                names = [str(node.args[0].value)] if "import_module" in ast.unparse(node.func) else []
            found += [file.name for name in names if name.partition(".")[0] == "lerobot"]
    assert set(found) == {"pretrained.py"}


def test_policy_is_found_beside_the_others() -> None:
    assert swm.policy.LeRobotPolicy is LeRobotPolicy


def test_loop_without_reset_hook_works() -> None:
    with world(2) as envs:
        pool = envs.envs
        policy = LeRobotPolicy(OneQueue(2))
        policy.set_env(pool)
        _, infos = pool.reset(seed=0)
        for _ in range(3):
            actions = policy.get_action(dict(infos))
            infos = pool.step(actions)[-1]
        assert actions.shape == (2, 1)
        assert np.isfinite(actions).all()
