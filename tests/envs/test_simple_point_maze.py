"""SimplePointMaze: the contract of all envs, the recordings of the public implementation, and what is its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from envs.contract import RestorableContract
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from stable_worldmodel.envs.simple_point_maze import ExpertPolicy, SimplePointMazeEnv
from stable_worldmodel.envs.simple_point_maze.geometry import Maze, Routes, are_clear, touches
from stable_worldmodel.errors import ContractError

DATA = Path(__file__).parents[1] / "data" / "point_maze"
RECORDED = json.loads((DATA / "point_maze.json").read_text())


class TestSimplePointMaze(RestorableContract):
    id = "swm/SimplePointMaze-v0"

    def test_a_restored_row_goes_on_as_it_was_recorded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(type(self), "kwargs", {**self.kwargs, "show_goal": False})  # the goal has moved
        super().test_a_restored_row_goes_on_as_it_was_recorded()


class TestSimplePointMazeWithGoalsAnywhere(TestSimplePointMaze):
    kwargs = {"target_rule": "any", "max_walls": 3, "min_walls": 0}  # noqa: RUF012


def make(size: tuple[int, int] = (16, 16), **kwargs: Any) -> SimplePointMazeEnv:
    env = SimplePointMazeEnv(render_mode="rgb_array", **kwargs)
    env.render_shape = size
    return env


def reset_to(env: SimplePointMazeEnv, state=None, target_state=None, **values: Any):
    given = {name.replace("__", "."): value for name, value in values.items()}
    options = {"variation": [], "variation_values": given, "state": state, "target_state": target_state}
    return env.reset(seed=0, options=options)


# ---------------------------------------------------------------------- recordings of the public implementation
@pytest.mark.parametrize("target_rule", ["reachable", "any"])
@pytest.mark.parametrize("case", RECORDED["cases"], ids=lambda case: case["name"])
def test_trajectory_is_the_recorded_one(case: dict, target_rule: str) -> None:
    data = np.load(DATA / "point_maze.npz")
    steps = {key: data[f"{case['name']}/{key}"] for key in ("actions", "state", "reward", "terminated")}
    env = make(target_rule=target_rule)
    options = {key: case[key] for key in ("variation_values", "state")}
    observation, _ = env.reset(seed=0, options={"variation": [], **options})
    np.testing.assert_array_equal(observation, data[f"{case['name']}/initial_state"])
    for t, action in enumerate(steps["actions"]):
        observation, reward, terminated, truncated, _ = env.step(action)
        np.testing.assert_allclose(observation, steps["state"][t], atol=1e-4)
        assert (reward, terminated, truncated) == (steps["reward"][t], steps["terminated"][t], False)


def test_default_walls_are_the_published_ones() -> None:
    space = make().variation_space
    positions = [(1.0353, 3.4555), (3.0024, 3.4423), (1.5345, 2.9165)]
    positions += [(2.1422, 2.7831), (1.2603, 3.4533), (1.5043, 2.3973)]
    shapes = [
        (1.2894, 0.8407),
        (1.2444, 1.0428),
        (0.6598, 1.3639),
        (1.1125, 1.0995),
        (0.9639, 0.6165),
        (0.7141, 0.6556),
    ]
    np.testing.assert_allclose(space.value_of("walls.positions"), positions, atol=5e-5)
    np.testing.assert_allclose(space.value_of("walls.shape"), shapes, atol=5e-5)
    assert space.value_of("walls.number") == 5


# ---------------------------------------------------------------------- motion
WALL = {"walls__number": 4, "walls__positions": [(2, 2)] * 6, "walls__shape": [(1, 1)] * 6}


def test_contact_stops_the_whole_step() -> None:
    env = make()
    reset_to(env, state=(1.7, 2.5), **WALL)
    assert env.step(np.array([0.2, 0.1]))[0].tolist() == pytest.approx([1.7, 2.5])  # no sliding
    assert env.step(np.array([0.15, 0.1]))[0].tolist() == pytest.approx([1.85, 2.6])


def test_actions_are_clipped() -> None:
    env = make()
    reset_to(env, state=(1.0, 1.0), agent__speed=2.0)
    assert env.step(np.array([0.9, -0.9]))[0].tolist() == pytest.approx([1.4, 0.6])


mazes = st.builds(
    Maze,
    walls=st.lists(
        st.tuples(st.floats(0, 3.5), st.floats(0, 3.5), st.floats(0.5, 1.5), st.floats(0.5, 1.5)), max_size=6
    ).map(tuple),
    radius=st.floats(0.05, 0.5),
    speed=st.floats(0.05, 2.0),
)
points = st.tuples(st.floats(0, 5), st.floats(0, 5))


@given(mazes, points, st.lists(st.tuples(st.floats(-0.2, 0.2), st.floats(-0.2, 0.2)), max_size=20))
def test_no_step_ends_in_a_wall_or_outside(maze, start, actions) -> None:
    assume(not touches(maze.walls, start, maze.radius))
    position = start
    for action in actions:
        position = maze.move(position, action)
        assert not touches(maze.walls, position, maze.radius)
        assert all(0 <= p <= 5 for p in position)


def test_no_step_beyond_the_edge_ends_in_a_wall() -> None:
    maze = Maze(walls=((4.0, 1.0, 1.0, 1.0),), radius=0.05, speed=1.0)
    assert maze.move((5.0, 2.1), (0.2, -0.2)) == (5.0, 2.1)


@settings(max_examples=200)
@given(mazes, points, points)
def test_a_clear_line_has_no_contact_on_it(maze, start, end) -> None:
    samples = np.linspace(start, end, 200)
    contact = any(touches(maze.walls, tuple(p), maze.radius) for p in samples.tolist())
    clear = are_clear(maze, np.array([start]), np.array([end]))[0]
    assert not (clear and contact)
    roomy = Maze(maze.walls, maze.radius + np.hypot(*np.subtract(end, start)) / 100 + 1e-6, maze.speed)
    if not clear:  # the samples may just miss a contact, not by more than their distance
        assert any(touches(roomy.walls, tuple(p), roomy.radius) for p in samples.tolist())


# ---------------------------------------------------------------------- factors
def test_a_goal_behind_walls_is_refused_unless_any_will_do() -> None:
    ring = {
        "walls__number": 4,
        "walls__positions": [(3, 3), (3, 3), (3.5, 4.5), (4.5, 3.5), (0, 0), (0, 0)],
        "walls__shape": [(1.5, 0.5), (0.5, 1.5), (1.5, 0.5), (0.5, 1.5), (0.5, 0.5), (0.5, 0.5)],
        "goal__position": (4, 4),
    }
    with pytest.raises(ContractError, match=r"goal\.position"):
        reset_to(make(), **ring)
    _, info = reset_to(make(target_rule="any"), **ring)
    assert info["goal_state"].tolist() == [4, 4]


def test_walls_that_cover_start_or_goal_move_them() -> None:
    env = make()
    _, info = reset_to(env, walls__number=4, walls__positions=[(0, 0), (4, 4), (2, 2), (2, 2), (2, 2), (2, 2)],
                       walls__shape=[(1, 1)] * 6)  # fmt: skip
    assert info["state"].tolist() != [0.5, 0.5]
    assert info["goal_state"].tolist() != [4.5, 4.5]


def test_stepping_leaves_the_factors_alone() -> None:
    env = make()
    reset_to(env)
    env.step(np.array([0.2, 0.2]))
    assert env.variation_space.value_of("agent.position").tolist() == [0.5, 0.5]


@pytest.mark.parametrize(
    "kwargs", [{"min_walls": 7}, {"wall_min_size": 2.0}, {"wall_max_size": 5.0}, {"target_rule": "near"}]
)
def test_constructor_refuses_impossible_mazes(kwargs) -> None:
    with pytest.raises(ContractError):
        SimplePointMazeEnv(**kwargs)


# ---------------------------------------------------------------------- picture
def test_picture_has_y_up_and_a_half_transparent_goal() -> None:
    env = make((100, 100))
    reset_to(env, state=(1.0, 1.0), target_state=(4.0, 1.0), **WALL)
    picture = env.render()
    assert picture[80, 20].tolist() == [255, 0, 0]
    assert picture[80, 80].tolist() == [128, 255, 128]
    assert picture[50, 50].tolist() == [0, 0, 0]
    dark = np.argwhere((picture == 0).all(axis=2))
    assert dark.min(axis=0).tolist() == [40, 40]
    assert dark.max(axis=0).tolist() == [59, 59]
    assert make(show_goal=False).reset(seed=0)[1]["goal"].tolist() != make().reset(seed=0)[1]["goal"].tolist()


def test_goal_shows_the_agent_at_the_goal() -> None:
    env = make((64, 64))
    _, info = reset_to(env)
    env._set_state(info["goal_state"])
    np.testing.assert_array_equal(info["goal"], env.render())


# ---------------------------------------------------------------------- expert
def steps_to_goal(env: SimplePointMazeEnv, policy: ExpertPolicy, seed: int, options: Any, max_steps: int) -> int | None:
    policy.set_env(env)
    _, info = env.reset(seed=seed, options=options)
    policy.reset([0], [seed])
    for t in range(max_steps):
        _, _, terminated, _, info = env.step(policy.get_action(info))
        if terminated:
            return t + 1
    return None


def test_expert_reaches_every_default_goal() -> None:
    env = make()
    assert all(steps_to_goal(env, ExpertPolicy(), seed, None, 60) for seed in range(60))


def test_expert_solves_every_maze() -> None:
    env = make()
    values = {"agent.speed": 1.0}
    options = {"variation": ["all"], "variation_values": values}
    assert all(steps_to_goal(env, ExpertPolicy(), seed, options, 100) for seed in range(60))


def test_noise_does_not_mislead_the_expert() -> None:
    env = make()
    reached = [steps_to_goal(env, ExpertPolicy(action_noise=0.1, seed=0), seed, None, 150) for seed in range(30)]
    assert sum(r is not None for r in reached) >= 27


def test_route_turns_the_corner() -> None:
    maze = Maze(walls=((2.0, 0.0, 1.0, 4.0),), radius=0.1, speed=1.0)
    routes = Routes(maze, (4.0, 1.0), 0.2)
    assert routes.waypoint((1.0, 1.0)) == pytest.approx((1.899, 4.101), abs=1e-6)
    assert routes.waypoint((1.899, 4.101)) == pytest.approx((3.101, 4.101), abs=1e-6)
    assert routes.waypoint((4.0, 3.0)) == (4.0, 1.0)
