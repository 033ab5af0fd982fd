"""Experts of DM Control: scripted controllers and trained actors."""

from __future__ import annotations

import io
import itertools
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import stable_worldmodel as swm
from stable_worldmodel.envs.dmcontrol import ExpertPolicy
from stable_worldmodel.envs.dmcontrol.actor import load_actor
from stable_worldmodel.errors import ContractError

pytest.importorskip("dm_control")


def world(name: str, num_envs: int = 4, **kwargs: Any) -> swm.World:
    settings = {"add_pixels": False, "max_episode_steps": None, "backend": "sync", "goal_conditioned": False}
    return swm.World(f"swm/{name}DMControl-v0", num_envs, **{**settings, **kwargs})


def returns(name: str, num_envs: int, seed: int = 0, **kwargs: Any) -> np.ndarray:
    with world(name, num_envs, **kwargs) as pool:
        pool.set_policy(ExpertPolicy(seed=0))
        pool.reset(seed=seed)
        total = np.zeros(num_envs)
        while not pool.truncateds.any():
            pool.step()
            total += pool.rewards
    return total


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "task", "episodes"),
    [
        ("Reacher", "easy", 10),
        ("Reacher", "hard", 10),
        ("Pendulum", "swingup", 40),
        ("Cartpole", "swingup_sparse", 10),
        ("BallInCup", "catch", 8),
    ],
)
def test_scripted_experts_collect_four_fifths_of_the_maximum(name: str, task: str, episodes: int) -> None:
    assert returns(name, episodes, task=task).mean() >= 800


def test_reacher_gets_to_the_target_at_once() -> None:
    with world("Reacher", 4, task="qpos_match") as pool:
        pool.set_policy(ExpertPolicy(seed=0))
        results = pool.evaluate(episodes=8, seed=0, progress=False)
    assert results["success_rate"] == 100


def test_actions_follow_the_episode_not_the_pool() -> None:
    runs = []
    for num_envs in (1, 3):
        with world("Reacher", num_envs, max_episode_steps=20) as pool:
            pool.set_policy(ExpertPolicy(noise_std=0.2, seed=1))
            episodes: list[Any] = []
            pool.collect(writer=_Writer(episodes), episodes=3, seed=5, progress=False)
        runs.append(episodes)
    for one, other in zip(*runs, strict=True):
        np.testing.assert_array_equal(one["action"], other["action"])


class _Writer:
    def __init__(self, episodes: list[Any]):
        self._episodes = episodes

    def write_episode(self, columns: Any) -> None:
        self._episodes.append(columns)


def test_one_env_without_a_pool() -> None:
    import gymnasium as gym

    env = gym.make("swm/PendulumDMControl-v0")
    policy = ExpertPolicy()
    policy.set_env(env)
    _, info = env.reset(seed=0)
    action = policy.get_action(info)
    assert action.shape == (1,)
    assert action.dtype == np.float32


def test_domains_without_a_script_need_a_checkpoint() -> None:
    with world("Cheetah", 1) as pool, pytest.raises(ContractError, match=r"cheetah.*ckpt_path"):
        pool.set_policy(ExpertPolicy())


def test_run_ahead_is_what_happens() -> None:
    import gymnasium as gym

    env = gym.make("swm/BallInCupDMControl-v0", disable_env_checker=True).unwrapped
    env.reset(seed=0)
    actions = np.random.default_rng(0).uniform(-1, 1, (2, 10, 2))
    states = env.run_ahead(actions)
    again = env.run_ahead(actions)
    np.testing.assert_array_equal(states, again)
    for t in range(10):
        info = env.step(actions[1, t])[4]
        np.testing.assert_allclose(info["state"], states[1, t], atol=1e-9)
    with pytest.raises(ContractError, match="K, T, 2"):
        env.run_ahead(actions[0])


# ---------------------------------------------------------------------- trained actors
def layers(rng: np.random.Generator, sizes: tuple[int, ...]) -> dict[str, np.ndarray]:
    tensors = {}
    for i, (n, m) in enumerate(itertools.pairwise(sizes)):
        tensors[f"layers.{i}.weight"] = rng.standard_normal((m, n)).astype(np.float32) / 4
        tensors[f"layers.{i}.bias"] = rng.standard_normal(m).astype(np.float32) / 4
    return tensors


def test_stable_baselines_checkpoints_give_torchs_actions(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    trunk = torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.ReLU(), torch.nn.Linear(16, 16), torch.nn.ReLU())
    heads = {"mu": torch.nn.Linear(16, 2), "log_std": torch.nn.Linear(16, 2)}
    weights = {f"actor.latent_pi.{key}": value for key, value in trunk.state_dict().items()}
    for name, head in heads.items():
        weights |= {f"actor.{name}.{key}": value for key, value in head.state_dict().items()}
    stored = io.BytesIO()
    torch.save(weights, stored)
    with zipfile.ZipFile(tmp_path / "sac.zip", "w") as archive:
        archive.writestr("policy.pth", stored.getvalue())
        archive.writestr("data", "not read")
    np.savez(tmp_path / "stats.npz", mean=np.full(6, 0.5), var=np.full(6, 4.0))
    rng = np.random.default_rng(0)
    observations, draws = rng.standard_normal((5, 6)), rng.standard_normal((5, 2))
    actions = load_actor(tmp_path / "sac.zip", tmp_path / "stats.npz").act(observations, draws)
    with torch.no_grad():
        hidden = trunk(torch.tensor((observations - 0.5) / 2, dtype=torch.float32))
        expected = torch.tanh(heads["mu"](hidden) + heads["log_std"](hidden).exp() * torch.tensor(draws))
    np.testing.assert_allclose(actions, expected.numpy(), atol=1e-5)


def test_actor_drives_a_world(tmp_path: Path) -> None:
    np.savez(tmp_path / "actor.npz", **layers(np.random.default_rng(0), (17, 8, 12)))
    with world("Cheetah", 2) as pool:
        pool.set_policy(ExpertPolicy(tmp_path / "actor.npz", noise_std=0.1, seed=0))
        pool.reset(seed=0)
        pool.step()
        assert np.abs(pool.infos["action"]).max() <= 1


def test_files_are_checked(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    good, bad = tmp_path / "good.npz", tmp_path / "bad.npz"
    np.savez(good, **layers(rng, (3, 4, 2)))
    np.savez(bad, **{"layers.0.weight": np.zeros((4, 3)), "layers.0.bias": np.zeros(5)})
    (tmp_path / "stats.pkl").write_bytes(pickle.dumps({"mean": 0}))
    np.savez(tmp_path / "long.npz", mean=np.zeros(7), var=np.ones(7))
    with pytest.raises(ContractError, match="make no actor"):
        load_actor(bad)
    with pytest.raises(ContractError, match="execute code"):
        load_actor(good, tmp_path / "stats.pkl")
    with pytest.raises(ContractError, match="expected \\(3,\\)"):
        load_actor(good, tmp_path / "long.npz")
    with pytest.raises(FileNotFoundError):
        load_actor(tmp_path / "none.npz")
    with pytest.raises(ContractError, match="expected a file of type"):
        load_actor(tmp_path / "stats.pkl")
    with pytest.raises(ContractError, match="noise_std"):
        ExpertPolicy(noise_std=-1)
    with pytest.raises(ContractError, match="ckpt_path"):
        ExpertPolicy(vec_normalize_path=good)
