"""DM Control: the suite's own dynamics at default, recorded trajectories, tasks, seeds and restoring."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from envs.contract import assert_same
from envs.dmcontrol_names import NAMES

import stable_worldmodel as swm
import stable_worldmodel.envs  # registers the ids
from stable_worldmodel.errors import ContractError
from stable_worldmodel.utils import flatten_dict

suite = pytest.importorskip("dm_control.suite")

DATA = Path(__file__).parents[1] / "data" / "dmcontrol"
RECORDED = json.loads((DATA / "dmcontrol.json").read_text())


def make(name: str, **kwargs: Any) -> Any:
    return gym.make(f"swm/{name}DMControl-v0", disable_env_checker=True, **kwargs).unwrapped


def tasks() -> list[tuple[str, str]]:
    return [(name, task) for name in NAMES for task in make(name).tasks]


# ---------------------------------------------------------------------- dynamics
@pytest.mark.parametrize("name", NAMES)
def test_default_env_is_the_suites_own(name: str) -> None:
    env = make(name)
    _, info = env.reset(seed=5, options={"variation": ["all"]})  # leaves nothing behind
    _, info = env.reset(seed=5)
    own = suite.load(env.domain, env.tasks[env.task].suite)
    random = np.random.Generator(np.random.PCG64(5)).integers(2**32)
    own.task._random = np.random.RandomState(random)
    step = own.reset()
    np.testing.assert_array_equal(info["qpos"], own.physics.data.qpos)
    env.action_space.seed(5)
    for _ in range(200):
        action = env.action_space.sample()
        observation, reward, terminated, truncated, info = env.step(action)
        scaled = own.action_spec()
        exact = (scaled.minimum == -1) & (scaled.maximum == 1)
        stretched = scaled.minimum + (scaled.maximum - scaled.minimum) / 2 * (action + 1)
        raw = np.where(exact, action, stretched)
        first, step = own.step(raw), own.step(raw)
        np.testing.assert_array_equal(info["qpos"], own.physics.data.qpos)
        np.testing.assert_array_equal(info["qvel"], own.physics.data.qvel)
        expected = np.concatenate([np.ravel(part) for part in step.observation.values()]).astype(np.float32)
        np.testing.assert_array_equal(observation, expected)
        assert reward == first.reward + step.reward
        assert (terminated, truncated) == (False, False)


@pytest.mark.parametrize("case", RECORDED["cases"], ids=lambda case: case["name"])
def test_run_is_the_recorded_one(case: dict) -> None:
    data = {
        key.partition("/")[2]: value
        for key, value in np.load(DATA / "dmcontrol.npz").items()
        if key.startswith(f"{case['name']}/")
    }
    env = make(case["name"])
    env.reset(seed=0, options={"state": np.concatenate([data["initial_qpos"], data["initial_qvel"]])})
    for t, action in enumerate(data["actions"]):
        observation, reward, _, _, info = env.step(action)
        if case["obs_and_reward"]:
            assert reward == pytest.approx(data["reward"][t], abs=1e-5)
        if (t + 1) % RECORDED["every"]:
            continue
        k = t // RECORDED["every"]
        within = max(1e-4, 20 * float(np.max(data["spread"][k])))  # recorded with MuJoCo 3.10
        np.testing.assert_allclose(info["qpos"], data["qpos"][k], atol=within, rtol=0)
        np.testing.assert_allclose(info["qvel"], data["qvel"][k], atol=within, rtol=0)
        if case["obs_and_reward"]:
            np.testing.assert_allclose(observation, data["obs"][k], atol=max(within, 1e-5), rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_sizes(name: str) -> None:
    sizes = {
        "Acrobot": (6, 1, 2, 2), "BallInCup": (8, 2, 4, 4), "Cartpole": (5, 1, 2, 2), "Cheetah": (17, 6, 9, 9),
        "Finger": (12, 2, 3, 3), "Hopper": (15, 4, 7, 7), "Humanoid": (67, 21, 28, 27),
        "Manipulator": (44, 5, 11, 11), "Pendulum": (3, 1, 1, 1), "Quadruped": (78, 12, 23, 22),
        "Reacher": (6, 2, 2, 2), "Walker": (24, 6, 9, 9),
    }  # fmt: skip
    env = make(name)
    _, info = env.reset(seed=0)
    assert (*env.observation_space.shape, *env.action_space.shape, *info["qpos"].shape, *info["qvel"].shape) == sizes[
        name
    ]
    assert info["env_name"] == name


def test_an_episode_ends_at_the_suites_limit() -> None:
    env = make("Pendulum")
    env.reset(seed=0)
    flags = [env.step(np.zeros(1))[2:4] for _ in range(500)]
    assert flags == [(False, False)] * 499 + [(False, True)]


# ---------------------------------------------------------------------- tasks
@pytest.mark.parametrize(("name", "task"), tasks())
def test_rewards_of_all_tasks_are_between_0_and_1(name: str, task: str) -> None:
    env = make(name, task=task)
    env.reset(seed=1)
    env.action_space.seed(1)
    for _ in range(30):
        _, reward, _, _, info = env.step(env.action_space.sample())
        assert 0 <= reward <= 2 + 1e-9
        assert np.isfinite(info["score"])


def physics_of(env: Any, **qpos: float) -> Any:
    physics = env.dmc_env.physics
    with physics.reset_context():
        for joint, value in qpos.items():
            physics.named.data.qpos[joint] = value
    return physics


def test_custom_rewards_of_the_cheetah() -> None:
    env = make("Cheetah")
    env.reset(seed=0)
    reward = {name: task.reward for name, task in env.tasks.items()}
    upright = physics_of(env, rootz=2.0, rooty=-np.pi / 2)  # head up, far above the ground
    assert reward["legs-up"](upright) < 0.5
    assert reward["stand-front"](upright) == pytest.approx(1.0)  # at rest, torso and foot high enough
    assert reward["run-front"](upright) == pytest.approx(1 / 6)  # lifted, but stands still
    flat = physics_of(env, rootz=-0.45)
    assert reward["lie-down"](flat) > 0.9
    running = physics_of(env)
    running.named.data.qvel["rootx"] = -10.0
    running.forward()
    assert reward["run-backward"](running) == pytest.approx(1.0, abs=1e-6)
    running.named.data.qvel["rootx"] = -5.0
    running.forward()
    assert reward["run-backward"](running) == pytest.approx(0.5, abs=1e-6)
    turning = physics_of(env)
    turning.named.data.qvel["rooty"] = 50.0
    turning.forward()
    assert reward["flip"](turning) > reward["flip-backward"](turning)


def test_custom_rewards_of_walker_and_hopper() -> None:
    env = make("Walker")
    env.reset(seed=0)
    reward = {name: task.reward for name, task in env.tasks.items()}
    standing = physics_of(env)
    assert reward["walk-backward"](standing) == pytest.approx(1 / 6, abs=0.01)  # upright at no speed
    standing.named.data.qvel["rootx"] = -1.0
    standing.forward()
    assert reward["walk-backward"](standing) == pytest.approx(1.0, abs=0.01)
    upright = reward["lie_down"](standing)
    lying = physics_of(env, rootz=-1.24, rooty=np.pi / 2)
    assert reward["lie_down"](lying) > upright + 0.3
    head_down = physics_of(env, rootz=0.4, rooty=np.pi)
    assert reward["flip"](head_down) > 0.9
    assert reward["arabesque"](head_down) < 1
    hopper = make("Hopper")
    hopper.reset(seed=0)
    back = physics_of(hopper)
    back.named.data.qvel["rootx"] = -1.0
    back.forward()
    assert hopper.tasks["hop-backward"].reward(back) == pytest.approx(1.0, abs=1e-6)
    back.named.data.qvel["rooty"] = 30.0
    back.forward()
    spins = [hopper.tasks[name].reward(back) for name in ("flip", "flip-backward")]
    assert sorted(spins) == [0.0, 1.0]


def test_task_names_accept_either_dash() -> None:
    assert make("Cheetah", task="run_backward").task == "run-backward"
    assert make("Walker", task="lie-down").task == "lie_down"
    with pytest.raises(ContractError, match="expected one of"):
        make("Walker", task="dance")


# ---------------------------------------------------------------------- goal
def test_reacher_reaches_a_configuration() -> None:
    env = make("Reacher", task="qpos_match", render_mode="rgb_array")
    env.render_shape = (48, 48)
    target = np.array([1.0, 0.5])
    _, info = env.reset(seed=0, options={"state": [1.2, 0.5, 0, 0], "target_qpos": target})
    np.testing.assert_array_equal(info["target_qpos"], target)
    assert not info["is_success"]
    env.set_state(target, [0, 0])
    np.testing.assert_array_equal(env.render(), info["goal"])
    _, _, terminated, _, info = env.step(np.zeros(2))
    assert terminated
    assert info["is_success"]
    env.set_state(target + np.array([2 * np.pi, 0]), [0, 0])  # the shoulder has no limits
    assert env.step(np.zeros(2))[2]
    env.set_state(target + np.array([0.06, 0]), [0, 0])
    assert not env.step(np.zeros(2))[2]
    env.set_target_qpos(target + np.array([0.06, 0]))
    assert env.step(np.zeros(2))[2]
    other = make("Reacher", task="easy")
    other.reset(seed=0)
    with pytest.raises(AssertionError, match="qpos_match"):
        other.set_target_qpos(target)


def test_goals_follow_the_seed() -> None:
    env = make("Reacher", task="qpos_match")
    goals = [env.reset(seed=seed)[1]["target_qpos"] for seed in (1, 2, 1)]
    np.testing.assert_array_equal(goals[0], goals[2])
    assert not np.array_equal(goals[0], goals[1])
    without, with_goal = env.reset(seed=1)[1], env.reset(seed=1, options={"target_qpos": [0, 0]})[1]
    np.testing.assert_array_equal(without["qpos"], with_goal["qpos"])


# ---------------------------------------------------------------------- restoring
@pytest.mark.parametrize("name", NAMES)
def test_a_recorded_row_goes_on_bit_for_bit(name: str) -> None:
    env, other = make(name, render_mode="rgb_array"), make(name, render_mode="rgb_array")
    env.render_shape = other.render_shape = (32, 32)
    env.reset(seed=3, options={"variation": ["all"]})
    env.action_space.seed(0)
    for _ in range(6):
        info = env.step(env.action_space.sample())[4]
    factors = {f"variation.{key}": np.atleast_1d(v) for key, v in flatten_dict(env.variation_space.value).items()}
    row = {key: np.asarray(value) for key, value in info.items() if not isinstance(value, str)}
    options = other.reset_options_from_dataset({**row, **factors}, {})
    _, found = other.reset(seed=77, options=options)
    for key in ("qpos", "qvel", "state", "qacc_warmstart", "act"):
        if key in info:
            np.testing.assert_array_equal(found[key], info[key])
    for key in env.draws:
        np.testing.assert_allclose(found[key], info[key], atol=1e-15)
    np.testing.assert_array_equal(env.render(), other.render())
    ignored = {"score", *env.draws}
    for _ in range(10):
        action = env.action_space.sample()
        (_, reward, *_, one), (_, again, *_, two) = env.step(action), other.step(action)
        assert reward == pytest.approx(again)
        assert_same(
            [{k: v for k, v in one.items() if k not in ignored}], [{k: v for k, v in two.items() if k not in ignored}]
        )


def test_states_may_be_given_without_the_solvers_memory() -> None:
    env = make("Walker")
    _, info = env.reset(seed=0)
    for _ in range(3):
        info = env.step(env.action_space.sample())[4]
    options = env.reset_options_from_dataset({"state": info["state"]}, {})
    np.testing.assert_array_equal(env.reset(options=options)[1]["state"], info["state"])
    with pytest.raises(KeyError, match="state"):
        env.reset_options_from_dataset({"qpos_only": 1}, {})
    for bad in (np.zeros(3), np.full(18, np.nan), np.zeros(19)):
        with pytest.raises(ContractError, match="state"):
            env.reset(options={"state": bad})


def test_setters() -> None:
    env = make("Cartpole")
    with pytest.raises(gym.error.ResetNeeded):
        env.set_state([0, 0], [0, 0])
    env.reset(seed=0)
    env.set_state([0.3, 1.0], [0.0, 0.1])
    env.set_gravity([0, 0, 0])
    info = env.step(np.zeros(1))[4]
    assert info["qvel"][1] == pytest.approx(0.1, abs=1e-3)
    env.reset(seed=0)
    assert env.dmc_env.physics.model.opt.gravity[2] == -9.81
    with pytest.raises(ContractError, match="gravity"):
        env.set_gravity([0, 0])


@pytest.mark.parametrize("action", [np.zeros(3), [np.nan, 0], np.zeros((1, 2))])
def test_bad_actions_are_refused(action: Any) -> None:
    env = make("Reacher")
    env.reset(seed=0)
    with pytest.raises(ContractError, match="action"):
        env.step(action)


def test_constructor_seed_holds_until_a_seeded_reset() -> None:
    one, two = make("Reacher", seed=4), make("Reacher", seed=4)
    np.testing.assert_array_equal(one.reset()[0], two.reset()[0])
    np.testing.assert_array_equal(one.reset()[0], two.reset()[0])
    assert not np.array_equal(one.reset(seed=0)[0], make("Reacher", seed=4).reset()[0])


# ---------------------------------------------------------------------- World
def test_a_world_records_level_and_state(tmp_path: Path) -> None:
    settings = {"max_episode_steps": 5, "goal_conditioned": False, "backend": "sync"}
    with swm.World("swm/ReacherDMControl-v0", 2, (32, 32), **settings) as world:
        world.set_policy(swm.policy.RandomPolicy(seed=0))
        world.collect(tmp_path / "reacher.h5", episodes=3, seed=0, progress=False)
    episode = swm.data.load_dataset(tmp_path / "reacher.h5").load_episode(0)
    assert {"qpos", "qvel", "target_pos", "pixels"} <= episode.keys()
    assert set(np.ravel(episode["render_quality"])) == {"matched"}


@pytest.mark.slow
def test_workers_draw_what_one_process_draws() -> None:
    found = []
    for backend in ("sync", "process"):
        with swm.World(
            "swm/ReacherDMControl-v0", 3, (32, 32), backend=backend, task="qpos_match", max_episode_steps=4
        ) as world:
            world.set_policy(swm.policy.RandomPolicy(seed=0))
            world.reset(seed=0, options={"variation": ["all"]})
            world.step()
            found.append({key: np.array(world.infos[key]) for key in ("pixels", "goal", "qpos")})
    assert_same([found[0]], [found[1]])


def test_ids_are_listed_without_the_package() -> None:
    code = (
        "import sys; sys.modules['dm_control'] = None\n"
        "from stable_worldmodel.envs import WORLDS\n"
        "assert 'swm/ReacherDMControl-v0' in WORLDS and 'mujoco' not in sys.modules\n"
        "import gymnasium\n"
        "try: gymnasium.make('swm/ReacherDMControl-v0')\n"
        "except ImportError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "stable-worldmodel[env]" in done.stdout
