"""SimpleNavigation: the contract of all envs, its mazes, the rules, and the expert."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from envs.contract import EnvContract
from envs.lifted import LiftedObservations
from hypothesis import given
from hypothesis import strategies as st

from stable_worldmodel.envs.simple_nav import ExpertPolicy, SimpleNavigationEnv
from stable_worldmodel.envs.simple_nav.maze import STEPS, carve, distances_to
from stable_worldmodel.errors import ContractError
from stable_worldmodel.utils import flatten_dict

LEFT, RIGHT, FORWARD = range(3)


class TestSimpleNavigation(LiftedObservations, EnvContract):
    id = "swm/SimpleNavigation-v0"


class TestLargeSimpleNavigation(LiftedObservations, EnvContract):
    id = "swm/SimpleNavigation-v0"
    kwargs = {"size": 21}  # noqa: RUF012


def make(size: int = 9, **kwargs: Any) -> SimpleNavigationEnv:
    env = SimpleNavigationEnv(size, **kwargs)
    env.render_shape = (16, 16)
    return env


def reset_to(env: SimpleNavigationEnv, state=None, target_state=None, **values: Any):
    given = {name.replace("__", "."): value for name, value in values.items()}
    options = {"variation": [], "variation_values": given, "state": state, "target_state": target_state}
    return env.reset(seed=0, options=options)


# ---------------------------------------------------------------------- mazes
mazes = st.builds(
    lambda columns, rows, p, q, seed: carve(2 * columns + 1, 2 * rows + 1, p, q, np.random.default_rng(seed)),
    st.integers(1, 12),
    st.integers(1, 12),
    st.floats(0.01, 0.99),
    st.floats(0.01, 0.99),
    st.integers(0, 2**31),
)


@given(mazes)
def test_maze_has_one_way_between_any_two_squares(floor) -> None:
    distances = distances_to(floor, (1, 1))
    np.testing.assert_array_equal(distances >= 0, floor)  # connected
    doors = (floor[1:] & floor[:-1]).sum() + (floor[:, 1:] & floor[:, :-1]).sum()
    assert doors == floor.sum() - 1  # without a circle


@given(mazes)
def test_maze_has_floor_on_all_cells_and_wall_around(floor) -> None:
    assert floor[1::2, 1::2].all()
    assert not floor[::2, ::2].any()
    assert not any(border.any() for border in (floor[0], floor[-1], floor[:, 0], floor[:, -1]))


def test_probabilities_shape_the_maze() -> None:
    def horizontal_doors(p: float) -> int:
        return sum(carve(21, 21, p, 0.5, np.random.default_rng(seed))[1:-2:2, 2::2].sum() for seed in range(20))

    assert horizontal_doors(0.1) < horizontal_doors(0.5) < horizontal_doors(0.9)


@given(mazes)
def test_distances_differ_by_one_between_neighbours(floor) -> None:
    distances = distances_to(floor, (1, 1))
    for y, x in np.argwhere(floor):
        ahead = [distances[y + dy, x + dx] for dx, dy in STEPS if floor[y + dy, x + dx]]
        assert all(abs(d - distances[y, x]) == 1 for d in ahead)
        assert distances[y, x] == 0 or ahead.count(distances[y, x] - 1) == 1


# ---------------------------------------------------------------------- rules
def test_turns_go_round() -> None:
    env = make()
    reset_to(env, agent__direction=0)
    assert [env.step(LEFT)[4]["dir_agent"] for _ in range(4)] == [3, 2, 1, 0]
    assert [env.step(RIGHT)[4]["dir_agent"] for _ in range(4)] == [1, 2, 3, 0]


def test_forward_moves_where_there_is_floor() -> None:
    env = make()
    reset_to(env)
    floor = env.layout()
    for direction, (dx, dy) in enumerate(STEPS):
        reset_to(env, state=(1, 1, direction))
        x, y = env.step(FORWARD)[4]["pos_agent"]
        assert (x, y) == ((1 + dx, 1 + dy) if floor[1 + dy, 1 + dx] else (1, 1))


def test_reward_is_minus_the_l1_distance_and_the_goal_ends_the_episode() -> None:
    env = make()
    reset_to(env)
    step = next(i for i, (dx, dy) in enumerate(STEPS) if env.layout()[1 + dy, 1 + dx])
    dx, dy = STEPS[step]
    _, info = reset_to(env, state=(1, 1, step), target_state=(1 + dx, 1 + dy, 2))
    assert info["is_success"] is False
    _, reward, terminated, truncated, info = env.step(FORWARD)
    assert (reward, terminated, truncated, info["is_success"]) == (0.0, True, False, True)
    reset_to(env, state=(1, 1, 0), target_state=(7, 5, 0))
    assert env.step(LEFT)[1:4] == (-10.0, False, False)


def test_observation_and_info_describe_agent_and_goal() -> None:
    observation, info = reset_to(make(), agent__direction=2, **{"goal__agent.direction": 3})
    assert observation["state"].tolist() == [1, 1, 2, 5, 5]
    assert observation["proprio"].tolist() == [1, 1, 2]
    assert info["goal_state"].tolist() == [5, 5, 3, 5, 5]
    assert info["goal_proprio"].tolist() == [5, 5, 3]
    assert (info["pos_goal"].tolist(), info["env_name"]) == ([5, 5], "SimpleNavigation")


@pytest.mark.parametrize("size", [4, 8, 3])
def test_even_or_tiny_sizes_are_refused(size) -> None:
    with pytest.raises(ContractError, match="size"):
        make(size)


def test_the_smallest_maze_finds_a_goal_beside_the_start() -> None:
    _, info = reset_to(make(5))
    assert info["pos_goal"].tolist() != [1, 1]


@pytest.mark.parametrize("action", [3, -1, 0.5])
def test_bad_actions_are_refused(action) -> None:
    env = make()
    env.reset(seed=0)
    with pytest.raises(ContractError, match="action"):
        env.step(action)


def test_step_needs_a_reset() -> None:
    with pytest.raises(gym.error.ResetNeeded):
        make().step(0)


def test_degenerate_probabilities_are_refused() -> None:
    with pytest.raises(ContractError, match="p_vertical"):
        reset_to(make(), maze__p_vertical=1.0)


# ---------------------------------------------------------------------- restoring
def walk(env: SimpleNavigationEnv, actions: list[int]):
    return [env.step(action) for action in actions][-1]


def test_a_recorded_row_is_restored() -> None:
    env = make()
    env.reset(seed=3)
    observation, _, _, _, info = walk(env, [FORWARD, RIGHT, FORWARD, FORWARD, LEFT, FORWARD])
    factors = {f"variation.{name}": np.atleast_1d(v) for name, v in flatten_dict(env.variation_space.value).items()}
    row = {"state": observation["state"].astype(np.float32), **factors}
    other = make()
    restored, found = other.reset(options=other.reset_options_from_dataset(row, {"goal_state": info["goal_state"]}))
    np.testing.assert_array_equal(restored["state"], observation["state"])
    np.testing.assert_array_equal(other.layout(), env.layout())
    np.testing.assert_array_equal(other.render(), env.render())
    np.testing.assert_array_equal(found["goal"], info["goal"])


def test_the_goal_of_a_row_is_where_its_agent_stands() -> None:
    env = make()
    options = env.reset_options_from_dataset({"state": (1, 1, 0, 5, 5)}, {"goal_state": (3, 3, 2, 5, 5)})
    observation, info = env.reset(options=options)
    assert observation["state"].tolist() == [1, 1, 0, 3, 3]
    assert info["goal_state"].tolist() == [3, 3, 2, 3, 3]
    assert env.variation_space.value_of("goal.position").tolist() == [3, 3]


def test_missing_columns_are_named() -> None:
    with pytest.raises(KeyError, match="goal_state"):
        make().reset_options_from_dataset({"state": (1, 1, 0, 5, 5)}, {})


@pytest.mark.parametrize("state", [(0, 0, 0), (2, 2, 0), (1, 1, 4), (1, 1), (1.5, 1, 0), (99, 1, 0)])
def test_impossible_states_are_refused(state) -> None:
    with pytest.raises(ContractError, match="state"):
        reset_to(make(), state=state)


# ---------------------------------------------------------------------- picture
def test_picture_shows_floor_walls_goal_and_arrow() -> None:
    env = make()
    env.render_shape = (90, 90)
    reset_to(env, state=(1, 1, 0), target_state=(5, 5, 0))
    picture = env.render()
    cells = picture[5::10, 5::10]
    assert cells[5, 5].tolist() == [0, 255, 0]
    assert cells[1, 1].tolist() == [255, 0, 0]
    assert cells[0, 0].tolist() == [100, 100, 100]
    assert cells[3, 3].tolist() == [0, 0, 0]
    for direction, (dx, dy) in enumerate(STEPS):  # the tip is where it looks
        env._set_state((1, 1, direction))
        red = np.argwhere((env.render() == (255, 0, 0)).all(axis=2)) - 15
        assert (red[:, ::-1].mean(axis=0) @ (dx, dy)) < 0  # the broad end is behind


def test_goal_shows_the_agent_on_the_goal_square() -> None:
    env = make()
    env.render_shape = (64, 64)
    _, info = env.reset(seed=4)
    env._set_state(info["goal_proprio"])
    np.testing.assert_array_equal(env.render(), info["goal"])


# ---------------------------------------------------------------------- expert
def steps_to_goal(env: SimpleNavigationEnv, policy: ExpertPolicy, seed: int, max_steps: int = 400) -> int | None:
    policy.set_env(env)
    _, info = env.reset(seed=seed)
    policy.reset([0], [seed])
    for t in range(max_steps):
        _, _, terminated, _, info = env.step(policy.get_action(info))
        if terminated:
            return t + 1
    return None


@pytest.mark.parametrize("size", [5, 9, 21])
def test_expert_takes_the_shortest_way(size) -> None:
    env = make(size)
    for seed in range(30):
        steps = steps_to_goal(env, ExpertPolicy(), seed)
        x, y = env.variation_space.value_of("agent.position")
        squares = distances_to(env.layout(), tuple(env.variation_space.value_of("goal.position").tolist()))[y, x]
        assert squares <= steps <= 3 * squares  # at most a turn back per square


def test_turning_back_takes_two_turns_to_the_left() -> None:
    env, policy = make(), ExpertPolicy()
    reset_to(env)
    direction = next(i for i, (dx, dy) in enumerate(STEPS) if env.layout()[1 + dy, 1 + dx])
    dx, dy = STEPS[direction]
    _, info = reset_to(env, state=(1, 1, (direction + 2) % 4), target_state=(1 + dx, 1 + dy, 0))
    policy.set_env(env)
    taken = []
    for _ in range(3):
        taken.append(int(policy.get_action(info)))
        info = env.step(taken[-1])[4]
    assert taken == [LEFT, LEFT, FORWARD]


def test_noise_delays_and_depends_on_the_seed() -> None:
    env = make()
    slow = [steps_to_goal(env, ExpertPolicy(0.5, seed=1), seed) for seed in range(20)]
    assert slow == [steps_to_goal(env, ExpertPolicy(0.5, seed=1), seed) for seed in range(20)]
    assert slow != [steps_to_goal(env, ExpertPolicy(0.5, seed=2), seed) for seed in range(20)]
    assert sum(slow) > sum(steps_to_goal(env, ExpertPolicy(), seed) for seed in range(20))


def test_expert_drives_several_envs() -> None:
    class Pool:
        def __init__(self) -> None:
            self.envs = [make() for _ in range(3)]

    pool, policy = Pool(), ExpertPolicy()
    policy.set_env(pool)
    infos = [env.reset(seed=seed)[1] for seed, env in enumerate(pool.envs)]
    stacked = {key: np.stack([info[key] for info in infos]) for key in ("pos_agent", "dir_agent", "pos_goal")}
    actions = policy.get_action(stacked)
    assert (actions.shape, actions.dtype) == ((3,), np.int64)
