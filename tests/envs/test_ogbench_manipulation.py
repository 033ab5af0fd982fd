"""OGBench Cube and Scene: physics of the package, restoring, tasks, setters, and what costs how much."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ogbench")

from stable_worldmodel.envs.ogbench import CubeEnv, SceneEnv, package
from stable_worldmodel.envs.ogbench.cube_env import ENV_TYPES
from stable_worldmodel.envs.ogbench.factors import APART
from stable_worldmodel.errors import ContractError

STEPS = 200


def package_env(ours: Any, **kwargs: Any) -> Any:
    """The package's own env in the state that ours is in."""
    kind = {"Cube": "cube", "Scene": "scene"}[ours.name]
    module = package.load(f"manipspace.envs.{kind}_env")
    env = getattr(module, type(ours).__name__)(ours.env_type, **kwargs)
    env.reset()
    if kind == "scene":
        env._cur_button_states = ours._cur_button_states.copy()
        env._target_button_states = ours._target_button_states.copy()
        env._apply_button_states()
    for field in ("qpos", "qvel"):
        getattr(env.data, field)[:] = getattr(ours.data, field)
    env.data.mocap_pos[:], env.data.mocap_quat[:] = ours.data.mocap_pos, ours.data.mocap_quat
    module.mujoco.mj_forward(env.model, env.data)
    env.data.qacc_warmstart[:] = ours.data.qacc_warmstart
    return env


@pytest.mark.parametrize(
    ("cls", "env_type"),
    [
        (CubeEnv, "double"),
        *(pytest.param(CubeEnv, kind, marks=pytest.mark.slow) for kind in ENV_TYPES if kind != "double"),
        pytest.param(SceneEnv, "scene", marks=pytest.mark.slow),
    ],
)
@pytest.mark.filterwarnings("ignore:.*precision lowered:UserWarning")
def test_default_physics_are_the_packages_to_the_last_bit(cls: type, env_type: str) -> None:
    ours = cls(env_type, terminate_at_goal=False)
    ours.reset(seed=0)
    theirs = package_env(ours, terminate_at_goal=False)
    generator = np.random.default_rng(0)
    for _ in range(STEPS):
        action = generator.uniform(-1, 1, 5)
        observed, reward, _, _, info = ours.step(action)
        expected, wanted, _, _, told = theirs.step(action)
        np.testing.assert_array_equal(ours.data.qpos, theirs.data.qpos)
        np.testing.assert_array_equal(ours.data.qvel, theirs.data.qvel)
        np.testing.assert_array_equal(observed, expected)
        assert reward == wanted
        for key in told.keys() - {"time"}:  # of the package's env, which has made steps of its own
            np.testing.assert_array_equal(info[key], told[key], err_msg=key, strict=isinstance(told[key], np.ndarray))


@pytest.mark.parametrize(
    "env_type",
    ["double", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ENV_TYPES if kind != "double")],
)
def test_every_task_can_be_chosen(env_type: str) -> None:
    env = CubeEnv(env_type, permute_blocks=False)
    assert env.num_tasks == 5
    for task in range(1, 6):
        _, info = env.reset(seed=task, options={"task_id": task})
        wanted = env.task_infos[task - 1]
        for cube, start in enumerate(wanted["init_xyzs"]):
            assert np.abs(info[f"privileged/block_{cube}_pos"] - start).max() < 0.012
        np.testing.assert_array_equal(env.data.mocap_pos[env._cube_target_mocap_ids], wanted["goal_xyzs"])


@pytest.mark.slow
def test_every_task_of_scene_can_be_chosen() -> None:
    env = SceneEnv()
    for task in range(1, env.num_tasks + 1):
        _, info = env.reset(seed=task, options={"task_id": task})
        start, goal = (env.task_infos[task - 1][part] for part in ("init", "goal"))
        assert np.abs(info["privileged/block_0_pos"] - start["block_xyzs"][0]).max() < 0.012
        assert abs(info["privileged/drawer_pos"][0] - start["drawer_pos"]) < 0.012
        assert abs(info["privileged/window_pos"][0] - start["window_pos"]) < 0.012
        np.testing.assert_array_equal(info["button_states"], start["button_states"])
        np.testing.assert_array_equal(info["goal_button_states"], goal["button_states"])
        np.testing.assert_array_equal(env.data.mocap_pos[env._cube_target_mocap_ids], goal["block_xyzs"])


EPISODE = """
import hashlib, sys
import numpy as np
from stable_worldmodel.envs.ogbench import CubeEnv, MazeEnv, SceneEnv

np.random.seed(int(sys.argv[1]))
content = hashlib.sha256()
for env, options in (
    (CubeEnv("double", mode="data_collection", render_mode="rgb_array"), {"variation": ["all"]}),
    (SceneEnv(render_mode="rgb_array"), {"variation": ["all"]}),
    (SceneEnv(mode="data_collection"), {}),
    (MazeEnv("ant", maze_type="teleport", render_mode="rgb_array"), {"variation": ["all"]}),
):
    env.render_shape = 24, 24
    observation, info = env.reset(seed=5, options=options)
    for action in np.random.default_rng(0).uniform(-1, 1, (10, *env.action_space.shape)):
        for key, value in sorted({**info, "observation": observation}.items()):
            content.update(f"{key} {np.asarray(value).dtype}".encode() + np.asarray(value).tobytes())
        observation, *_, info = env.step(action)
print(content.hexdigest())
"""


@pytest.mark.slow
def test_an_episode_is_the_same_in_any_process() -> None:
    digests = set()
    for seed in ("1", "2"):
        command = [sys.executable, "-c", EPISODE, seed]
        digests.add(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert len(digests) == 1


def test_cubes_at_their_goals_are_a_success() -> None:
    env = CubeEnv("double", reward_task_id=2)
    _, info = env.reset(seed=0)
    assert env.step(np.zeros(5))[1] == -2.0
    nq = env.model.nq
    env.set_state(info["goal_state"][:nq], np.zeros(env.model.nv))
    _, reward, terminated, _, info = env.step(np.zeros(5))
    assert (reward, terminated, info["is_success"]) == (0.0, True, True)


def test_a_target_that_is_set_is_the_goal() -> None:
    env = CubeEnv(terminate_at_goal=False)
    _, info = env.reset(seed=0)
    env.set_target_pos(0, info["privileged/block_0_pos"])
    _, _, _, _, info = env.step(np.zeros(5))
    assert info["is_success"]
    np.testing.assert_array_equal(info["goal_state"][14:17], env.data.mocap_pos[0])
    with pytest.raises(ContractError, match="cube_id"):
        env.set_target_pos(1, [0.3, 0.0, 0.02])


@pytest.mark.parametrize("size", [0.01, 0.03])
def test_stacks_stand_whatever_the_size_of_the_cubes(size: float) -> None:
    env = CubeEnv("octuple", terminate_at_goal=False)
    values = {"cube.size": np.full(8, size)}
    _, info = env.reset(seed=0, options={"task_id": 4, "variation_values": values})
    before = np.sort([info[f"privileged/block_{i}_pos"][2] for i in range(8)])
    np.testing.assert_allclose(before, [size] * 4 + [3 * size] * 4, atol=1e-9)


def test_cubes_that_are_sampled_do_not_overlap() -> None:
    env = CubeEnv("quadruple", mode="data_collection")
    for seed in range(5):
        _, info = env.reset(seed=seed)
        places = np.array([info[f"privileged/block_{i}_pos"][:2] for i in range(4)])
        gaps = np.linalg.norm(places[:, None] - places[None], axis=2)[np.triu_indices(4, 1)]
        assert gaps.min() >= APART - 1e-6


def test_two_views() -> None:
    env = CubeEnv(multiview=True, render_mode="rgb_array", height=32, width=32)
    env.reset(seed=0)
    views = env.render_multiview()
    assert list(views) == ["front_pixels", "side_pixels"]
    assert not np.array_equal(*views.values())
    assert CubeEnv(multiview=False).render_mode is None


def test_pictures_as_observations() -> None:
    env = CubeEnv(ob_type="pixels", height=64, width=48)
    observation, info = env.reset(seed=0)
    assert env.observation_space.contains(observation)
    assert info["target"].shape == observation.shape == (64, 48, 3)


def test_a_button_unlocks_what_it_locks() -> None:
    env = SceneEnv(terminate_at_goal=False)
    env.reset(seed=0, options={"task_id": 4})
    drawer = env.model.joint("drawer_slide").id
    damping = [float(env.model.dof_damping[env.model.jnt_dofadr[drawer]])]
    env.set_state(env.data.qpos.copy(), env.data.qvel.copy(), button_state_0=1, button_state_1=0)
    damping.append(float(env.model.dof_damping[env.model.jnt_dofadr[drawer]]))
    assert damping == [1e6, 2.0]
    with pytest.raises(ContractError, match="button_states"):
        env.set_state(env.data.qpos.copy(), env.data.qvel.copy(), button_states=[2, 0])


def test_scene_targets_can_be_set_one_by_one() -> None:
    env = SceneEnv(terminate_at_goal=False)
    _, info = env.reset(seed=0)
    env.set_target_drawer_pos(float(info["privileged/drawer_pos"][0]))
    env.set_target_window_pos(float(info["privileged/window_pos"][0]))
    env.set_cube_target_pos(0, info["privileged/block_0_pos"])
    for button in range(2):
        env.set_target_button_state(button, int(info["button_states"][button]))
    assert env.step(np.zeros(5))[4]["is_success"]
    with pytest.raises(ContractError, match="drawer"):
        env.set_target_drawer_pos(0.1)


@pytest.mark.parametrize(
    "kwargs",
    [
        {"env_type": "sextuple"},
        {"ob_type": "sounds"},
        {"mode": "play"},
        {"render_mode": "human"},
        {"reward_task_id": 6},
        {"quality": "best"},
    ],
)
def test_bad_arguments_are_refused(kwargs: dict[str, Any]) -> None:
    with pytest.raises(ContractError):
        CubeEnv(**kwargs)


@pytest.mark.parametrize("options", [{"task_id": 9}, {"state": np.zeros(3)}, {"goal_state": np.zeros(3)}])
def test_bad_reset_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ContractError):
        CubeEnv().reset(seed=0, options=options)


def test_new_targets_need_data_collection() -> None:
    env = CubeEnv()
    env.reset(seed=0)
    with pytest.raises(ContractError, match="data_collection"):
        env.set_new_target()


@pytest.mark.slow
@pytest.mark.parametrize(("cls", "env_type"), [(CubeEnv, "single"), (CubeEnv, "octuple"), (SceneEnv, "scene")])
@pytest.mark.parametrize("ob_type", ["states", "pixels"])
def test_matched_pictures_differ_little_from_full_ones(cls: type, env_type: str, ob_type: str) -> None:
    sizes, frames = (64, 96, 128, 224), []
    for quality in ("full", "matched"):
        env = cls(env_type, ob_type, multiview=True, render_mode="rgb_array", quality=quality)
        env.render_shape = 64, 64
        env.reset(seed=1)
        for action in np.random.default_rng(0).uniform(-1, 1, (5, 5)):
            env.step(action)
        frames.append([env.render_multiview(width=size, height=size) for size in sizes])
        env.close()
    for size, full, matched in zip(sizes, *frames, strict=True):
        for view, picture in full.items():
            assert 0 < np.abs(picture.astype(int) - matched[view]).mean() <= 2.0, (size, view)


@pytest.mark.parametrize("varied", [[], ["all"]])
def test_a_reset_compiles_nothing(varied: list[str]) -> None:
    """How long it takes is for `benchmarks/mujoco_envs.py` to say, not for a test on a busy machine."""
    env = CubeEnv()
    env.reset(seed=0)
    model, scenes = env._model, len(package._compiled)
    for seed in range(3):
        env.reset(seed=seed, options={"variation": varied})
    assert env._model is model
    assert len(package._compiled) == scenes
