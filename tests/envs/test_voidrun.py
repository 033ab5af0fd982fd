"""VoidRun: the contract of all envs, and the rules of the game."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from envs.contract import EnvContract
from envs.lifted import LiftedObservations
from hypothesis import given, settings
from hypothesis import strategies as st

from stable_worldmodel.envs.drawing2d import draw_cells
from stable_worldmodel.envs.voidrun import VoidRunEnv
from stable_worldmodel.errors import ContractError
from stable_worldmodel.utils import flatten_dict

LEFT, RIGHT, DOWN, UP = range(4)
VOID, SAND, GRAVEL = 0, 1, 2


class TestVoidRun(LiftedObservations, EnvContract):
    id = "swm/VoidRun-v0"
    # All gravel: nothing else differs between seeds.
    revealing = {"board.size": 10, "agent.position": (9, 9), "board.prob_gravel": 1.0}  # noqa: RUF012
    inert = {"board.prob_break": "kept because published datasets have it"}  # noqa: RUF012

    def actions(self, env: Any, count: int = 20) -> list[Any]:
        return [UP, LEFT, UP, RIGHT, RIGHT, DOWN, DOWN, LEFT, LEFT, UP, *super().actions(env, count)][:count]


def make(size: tuple[int, int] = (16, 16), **kwargs: Any) -> VoidRunEnv:
    env = VoidRunEnv(**kwargs)
    env.render_shape = size
    return env


def place(board: np.ndarray, agent: tuple[int, int], goal: tuple[int, int] = (0, 0), **kwargs: Any) -> VoidRunEnv:
    """An env with this upper left corner of a board of 10x10 cells; the rest is void."""
    env = make(**kwargs)
    whole = np.zeros((10, 10), int)
    whole[: board.shape[0], : board.shape[1]] = board
    values = {"board.size": 10}
    options = {"variation": [], "variation_values": values, "board": whole, "state": agent, "target_state": goal}
    env.reset(seed=0, options=options)
    return env


# ---------------------------------------------------------------------- rules
@pytest.mark.parametrize(("action", "end"), [(LEFT, (1, 0)), (RIGHT, (1, 2)), (DOWN, (2, 1)), (UP, (0, 1))])
def test_directions(action, end) -> None:
    env = place(np.ones((3, 3)), agent=(1, 1))
    assert tuple(env.step(action)[0]["perception"]) == end


def test_sand_left_becomes_void_and_pays() -> None:
    env = place(np.ones((3, 3)), agent=(1, 1))
    observation, reward, terminated, truncated, info = env.step(RIGHT)
    assert (observation["board"][1, 1], reward, terminated, truncated) == (VOID, 1.0, False, False)
    assert (info["newly_voided"], info["in_void"], info["steps"]) == (True, False, 1)


def test_the_edge_stops_the_agent_and_spares_its_cell() -> None:
    env = place(np.ones((3, 3)), agent=(0, 1))
    observation, reward, _, truncated, _ = env.step(UP)
    assert (tuple(observation["perception"]), observation["board"][0, 1]) == ((0, 1), SAND)
    assert (reward, truncated) == (0.0, False)


@pytest.mark.parametrize(("visits", "rewards"), [(1, [1.0]), (2, [0.0, 1.0])])
def test_gravel_lasts_for_its_visits(visits, rewards) -> None:
    env = place(np.full((3, 3), GRAVEL), agent=(1, 1), gravel_visits=visits)
    assert [env.step(action)[1] for action in (RIGHT, LEFT, RIGHT)][: 2 * visits : 2] == rewards


def test_stepping_on_void_truncates() -> None:
    env = place(np.ones((1, 3)), agent=(0, 1))
    _, _, terminated, truncated, info = env.step(DOWN)
    assert (terminated, truncated, info["in_void"]) == (False, True, True)


def test_winning_takes_an_empty_board_and_the_goal_last() -> None:
    env = place(np.ones((1, 3)), agent=(0, 2))
    assert [env.step(LEFT)[2] for _ in range(2)] == [False, True]
    env = place(np.ones((2, 3)), agent=(0, 2))  # something is left
    assert [env.step(LEFT)[2] for _ in range(2)] == [False, False]


def test_goal_that_was_left_is_void_and_shown_as_void() -> None:
    env = place(np.ones((1, 3)), agent=(0, 0))
    assert env.step(RIGHT)[0]["board"][0, 0] == VOID
    assert env.step(LEFT)[4]["is_success"] is False


def test_ground_holds_with_the_probability_given() -> None:
    env = make()
    options = {"variation": [], "variation_values": {"agent.prob_break": 0.5, "board.prob_gravel": 0.0}}
    env.reset(seed=0, options=options)
    broken = []
    for seed in range(200):
        env.reset(seed=seed, options=options)
        broken.append(env.step(UP)[1])
    assert 70 < sum(broken) < 130


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 3), max_size=60), st.integers(0, 1000))
def test_board_only_loses(actions, seed) -> None:
    env = make()
    board = env.reset(seed=seed)[0]["board"]
    for action in actions:
        _, agent = board, env.step(action)[0]
        worn = np.where(agent["board"] == 3, 1, agent["board"])
        assert (worn <= np.where(board == 3, 1, board)).all()
        assert (agent["board"] != board).sum() <= 1
        board = agent["board"]


@pytest.mark.parametrize("action", [4, -1, 1.5, np.zeros(2)])
def test_bad_actions_are_refused(action) -> None:
    env = make()
    env.reset(seed=0)
    with pytest.raises(ContractError, match="action"):
        env.step(action)


def test_step_and_render_need_a_reset() -> None:
    for call in (lambda env: env.step(0), VoidRunEnv.render):
        with pytest.raises(gym.error.ResetNeeded, match="reset"):
            call(make())


# ---------------------------------------------------------------------- factors
def test_share_of_gravel() -> None:
    env = make()
    board = env.reset(seed=0, options={"variation": [], "variation_values": {"board.prob_gravel": 0.8}})[0]["board"]
    assert (board == GRAVEL).sum() == pytest.approx(0.8 * 400, abs=40)
    assert (board != VOID).sum() == 400


def test_default_start_moves_onto_a_small_board() -> None:
    _, info = make().reset(seed=0, options={"variation": [], "variation_values": {"board.size": 10}})
    assert info["state"].tolist() == [9, 9]


def test_goal_is_not_the_start() -> None:
    with pytest.raises(ContractError, match=r"goal\.position"):
        make().reset(options={"variation": [], "variation_values": {"goal.position": (10, 10)}})


def test_constructor_seed_is_that_of_the_first_reset() -> None:
    boards = [make(seed=5).reset()[0]["board"], make().reset(seed=5)[0]["board"]]
    np.testing.assert_array_equal(*boards)


# ---------------------------------------------------------------------- restoring
def test_a_recorded_row_is_restored() -> None:
    env = make()
    env.reset(seed=3, options={"variation": ["all"], "variation_values": {"agent.prob_break": 1.0}})
    for action in (UP, LEFT, LEFT, DOWN):
        observation, _, _, _, info = env.step(action)
    factors = {f"variation.{name}": value for name, value in flatten_dict(env.variation_space.value).items()}
    other = make()
    row = {**observation, "state": info["state"], **factors}
    restored, found = other.reset(
        seed=9, options=other.reset_options_from_dataset(row, {"goal_state": info["goal_pos"]})
    )
    np.testing.assert_array_equal(restored["board"], observation["board"])
    np.testing.assert_array_equal(found["state"], info["state"])
    np.testing.assert_array_equal(other.render(), env.render())
    np.testing.assert_array_equal(env.step(RIGHT)[0]["board"], other.step(RIGHT)[0]["board"])


def test_a_missing_column_is_named() -> None:
    with pytest.raises(KeyError, match="board"):
        make().reset_options_from_dataset({"state": (1, 1)}, {"goal_state": (0, 0)})


def test_set_state_replaces_board_and_agent() -> None:
    env = place(np.ones((3, 3)), agent=(1, 1))
    env.step(RIGHT)
    board = np.zeros((10, 10), int)
    board[4, 4:6] = SAND
    observation = env.set_state(board, (4, 4))
    assert (tuple(observation["perception"]), observation["board"].sum()) == ((4, 4), 2)
    assert env.step(RIGHT)[4]["steps"] == 1
    with pytest.raises(ContractError, match="void"):
        env.set_state(board, (0, 0))
    _, picture = env.set_state(board, (0, 0), validate=False, render=True)
    assert picture.shape == (16, 16, 3)
    with pytest.raises(ContractError, match="board"):
        env.set_state(np.ones((3, 3)), (0, 0))


# ---------------------------------------------------------------------- picture
def test_picture_shows_cells_goal_and_agent() -> None:
    board = np.array([[SAND, SAND, GRAVEL, SAND], [VOID, SAND, SAND, SAND]])
    env = place(board, agent=(1, 2))
    env.render_shape = (100, 100)
    picture = env.render()[5::10, 5::10]
    assert picture[0, :4].tolist() == [[52, 235, 201], [242, 218, 130], [128, 128, 128], [242, 218, 130]]
    assert picture[1, :3].tolist() == [[0, 0, 0], [242, 218, 130], [255, 0, 0]]
    goal = env.step(UP)[4]["goal"][5::10, 5::10]
    assert goal[0, 0].tolist() == [255, 0, 0]
    assert not goal.reshape(-1, 3)[1:].any()


def test_agent_is_hidden_on_void() -> None:
    env = place(np.ones((1, 3)), agent=(0, 1))
    env.step(DOWN)
    assert not (env.render() == (255, 0, 0)).all(axis=2).any()


@given(st.integers(1, 50), st.integers(1, 50), st.integers(1, 80), st.integers(1, 80))
def test_cells_are_averaged_by_area(rows, columns, height, width) -> None:
    colors = np.random.default_rng(0).integers(0, 256, (rows, columns, 3))
    picture = draw_cells(colors, (height, width))
    assert picture.shape == (height, width, 3)
    assert np.abs(picture.mean((0, 1)) - colors.mean((0, 1))).max() < 0.51
    whole = draw_cells(colors, (2 * rows, 3 * columns))
    np.testing.assert_array_equal(whole, colors.repeat(2, axis=0).repeat(3, axis=1))
