"""OGBench Maze: physics of the package, restoring, and the expert."""

from __future__ import annotations

import copy

import numpy as np
import pytest

pytest.importorskip("ogbench")

from stable_worldmodel.envs.ogbench import MazeEnv, MazeExpertPolicy, package
from stable_worldmodel.envs.ogbench.maze_env import MAZES
from stable_worldmodel.errors import ContractError


@pytest.mark.parametrize(
    ("loco", "kind", "maze"),
    [
        *(("point", "maze", maze) for maze in MAZES["maze"]),
        *(("ant", "maze", maze) for maze in MAZES["maze"]),
        *(("ant", "ball", maze) for maze in MAZES["ball"]),
        ("humanoid", "maze", "medium"),
    ],
)
def test_default_physics_are_the_packages_to_the_last_bit(loco: str, kind: str, maze: str) -> None:
    ours = MazeEnv(loco, kind, maze, terminate_at_goal=False)
    theirs = package.load("locomaze.maze").make_maze_env(loco, kind, maze_type=maze, terminate_at_goal=False)
    _, info = ours.reset(seed=0)
    theirs.reset(seed=0)
    theirs.set_state(info["qpos"], info["qvel"])
    theirs.set_goal(goal_xy=info["goal_xy"])
    theirs.data.qacc_warmstart[:] = info["qacc_warmstart"]
    generator = np.random.default_rng(0)
    for _ in range(200):
        action = generator.uniform(-1, 1, ours.action_space.shape)
        draws = copy.deepcopy(ours.np_random)
        observed, reward, *_, info = ours.step(action)
        with package.seeded(draws):  # where teleports lead
            seen, wanted, *_, expected = theirs.step(action)
        np.testing.assert_array_equal(info["qpos"], expected["qpos"])
        np.testing.assert_array_equal(info["qvel"], expected["qvel"])
        np.testing.assert_array_equal(observed, seen)
        assert reward == wanted


@pytest.mark.parametrize("size", [64, pytest.param(224, marks=pytest.mark.slow)])
@pytest.mark.parametrize("ob_type", ["states", "pixels"])
@pytest.mark.parametrize("kind", [("point", "maze", "large"), ("ant", "ball", "medium")])
def test_matched_pictures_differ_little_from_full_ones(kind: tuple[str, ...], ob_type: str, size: int) -> None:
    frames = []
    for quality in ("full", "matched"):
        env = MazeEnv(*kind, ob_type, size, size, "rgb_array", quality=quality)
        goal = env.reset(seed=1)[1]["goal"]
        env.step(np.ones(env.action_space.shape))
        frames.append(np.stack([env.render(), goal]).astype(int))
        env.close()
    assert 0 < np.abs(frames[0] - frames[1]).mean(axis=(1, 2, 3)).max() <= 2


def test_a_teleport_leads_to_another_place() -> None:
    env = MazeEnv(maze_type="teleport", terminate_at_goal=False)
    places = set()
    for seed in range(6):
        env.reset(seed=seed)
        entry = env._maze.ij_to_xy(env._maze._teleport_info["teleport_in_ijs"][0])
        env.set_state([*entry], [0.0, 0.0])
        xy = env.step(np.zeros(2))[4]["xy"]
        assert np.hypot(*(xy - entry)) > 1.5
        places.add(tuple(np.round(xy)))
    assert len(places) > 1


def test_a_restored_ant_goes_on_as_it_was_recorded() -> None:
    env, other = MazeEnv("ant", maze_type="medium"), MazeEnv("ant", maze_type="medium")
    env.reset(seed=0)
    actions = np.random.default_rng(0).uniform(-1, 1, (20, 8))
    rows = [env.step(action)[4] for action in actions]
    goal = {f"goal_{key}": value for key, value in rows[15].items()}
    _, info = other.reset(seed=9, options=other.reset_options_from_dataset(rows[5], goal))
    np.testing.assert_array_equal(info["goal_xy"], rows[15]["xy"])
    for action, row in zip(actions[6:], rows[6:], strict=True):
        np.testing.assert_array_equal(other.step(action)[4]["state"], row["state"])


@pytest.mark.parametrize("maze", ["medium", "large", "teleport"])
def test_teleports_and_starts_follow_the_seed(maze: str) -> None:
    episodes = []
    for _ in range(2):
        env = MazeEnv(maze_type=maze, terminate_at_goal=False)
        env.reset(seed=3)
        policy = MazeExpertPolicy(0.5, seed=1)
        policy.set_env(env)
        info = env.reset(seed=3)[1]
        states = []
        for step in range(200):
            info = env.step(policy.get_action({**info, "step_idx": step}))[4]
            states.append(info["state"])
        episodes.append(states)
    np.testing.assert_array_equal(*episodes)


@pytest.mark.parametrize("task", range(1, 6))
def test_the_expert_arrives(task: int) -> None:
    env = MazeEnv(maze_type="large")
    policy = MazeExpertPolicy(0.1, seed=0)
    policy.set_env(env)
    _, info = env.reset(seed=task, options={"task_id": task})
    for step in range(600):
        _, _, terminated, _, info = env.step(policy.get_action({**info, "step_idx": step}))
        if terminated:
            break
    assert info["is_success"]


def test_the_expert_walks_points_only() -> None:
    with pytest.raises(ContractError, match="ant"):
        MazeExpertPolicy().set_env(MazeEnv("ant"))


@pytest.mark.parametrize("kwargs", [{"maze_type": "tiny"}, {"maze_env_type": "ball", "maze_type": "large"}])
def test_bad_arguments_are_refused(kwargs: dict) -> None:
    with pytest.raises(ContractError, match="maze_type"):
        MazeEnv(**kwargs)
