"""Vector entry points: the same numbers and pictures as one env after the other, to the last bit."""

from __future__ import annotations

import copy
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from hypothesis import given, settings
from hypothesis import strategies as st

import stable_worldmodel.envs  # noqa: F401  (registers the ids)
from stable_worldmodel.envs.piecewise.factors import Field, Fields
from stable_worldmodel.envs.simple_point_maze.geometry import Maze, Mazes
from stable_worldmodel.envs.two_room.geometry import Layout, Layouts
from stable_worldmodel.errors import ContractError

N = 5
IDS = ("swm/TwoRoom-v1", "swm/Piecewise-v0", "swm/SimplePointMaze-v0", "swm/SimpleNavigation-v0")
LIMIT = 9


def vectorised(id: str, mode: AutoresetMode = AutoresetMode.NEXT_STEP, **kwargs: Any) -> Any:
    envs = gym.make_vec(
        id,
        N,
        vectorization_mode="vector_entry_point",
        render_mode="rgb_array",
        autoreset_mode=mode,
        max_episode_steps=LIMIT,
        **kwargs,
    )
    envs.set_attr("render_shape", [(24, 24)] * N)
    return envs


def one_by_one(id: str, mode: AutoresetMode = AutoresetMode.NEXT_STEP, **kwargs: Any) -> SyncVectorEnv:
    def make() -> gym.Env:
        env = gym.make(id, render_mode="rgb_array", max_episode_steps=LIMIT, disable_env_checker=True, **kwargs)
        env.unwrapped.render_shape = (24, 24)
        return env

    return SyncVectorEnv([make] * N, autoreset_mode=mode)


def assert_same(ours: Any, theirs: Any, where: str = "") -> None:
    """Equal to the last bit, dtypes included."""
    assert type(ours) is type(theirs), where
    if isinstance(ours, dict):
        assert ours.keys() == theirs.keys(), where
        for key, value in ours.items():
            assert_same(value, theirs[key], f"{where}.{key}")
    elif isinstance(ours, (tuple, list)):
        for i, (value, other) in enumerate(zip(ours, theirs, strict=True)):
            assert_same(value, other, f"{where}[{i}]")
    elif isinstance(ours, np.ndarray) and ours.dtype == object:
        assert_same(ours.tolist(), theirs.tolist(), where)
    else:
        np.testing.assert_array_equal(ours, theirs, err_msg=where, strict=isinstance(ours, np.ndarray))
        if isinstance(ours, np.ndarray) and ours.dtype.kind == "f":
            np.testing.assert_array_equal(np.signbit(ours), np.signbit(theirs), err_msg=where)


def actions_of(envs: Any, steps: int, seed: int = 0) -> list[np.ndarray]:
    envs.action_space.seed(seed)
    return [envs.action_space.sample() for _ in range(steps)]


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
@pytest.mark.parametrize("variation", [None, {"variation": ["all"]}])
@pytest.mark.parametrize("id", IDS)
def test_every_number_is_that_of_the_single_envs(id: str, variation: Any, mode: AutoresetMode) -> None:
    ours, theirs = vectorised(id, mode), one_by_one(id, mode)
    assert (ours.observation_space, ours.action_space) == (theirs.observation_space, theirs.action_space)
    assert_same(ours.reset(seed=3, options=variation), theirs.reset(seed=3, options=copy.deepcopy(variation)))
    ended = 0
    for step, actions in enumerate(actions_of(theirs, 3 * LIMIT)):
        result = ours.step(actions)
        assert_same(result, theirs.step(actions), f"step {step}")
        assert_same(ours.render(), theirs.render(), f"step {step}")
        ended += int((result[2] | result[3]).sum())
    assert ended >= 2 * N


@pytest.mark.parametrize("id", IDS)
def test_episodes_that_end_in_success_are_the_same(id: str) -> None:
    ours, theirs = vectorised(id), one_by_one(id)
    for envs in (ours, theirs):
        envs.reset(seed=1)
    states = theirs.call("get_wrapper_attr", "_info")
    goals = [info()["goal_state"] for info in states]
    options = [{"state": goal} for goal in goals]
    options[0] = {}
    ours.reset(seed=1, options=options)
    for env, seed, option in zip(theirs.envs, range(1, N + 1), options, strict=True):
        env.reset(seed=seed, options=option)
    actions = np.zeros(theirs.action_space.shape, theirs.action_space.dtype)
    result = ours.step(actions)
    assert_same(result[1:], theirs.step(actions)[1:])
    assert result[2][1:].all()


@pytest.mark.parametrize("id", IDS)
def test_without_autoreset_only_the_masked_envs_are_reset(id: str) -> None:
    ours, theirs = (make(id, AutoresetMode.DISABLED) for make in (vectorised, one_by_one))
    assert_same(ours.reset(seed=0), theirs.reset(seed=0))
    for actions in actions_of(theirs, LIMIT):
        result = ours.step(actions)
        if not theirs._autoreset_envs.any():
            assert_same(result, theirs.step(actions))
        if (result[2] | result[3]).any():
            break
    mask = result[2] | result[3]
    with pytest.raises(gym.error.ResetNeeded, match="reset"):
        ours.step(actions)
    observations, infos = ours.reset(seed=50, options={"reset_mask": mask})
    expected, other = theirs.reset(seed=50, options={"reset_mask": mask.copy()})
    assert_same(observations, expected)
    np.testing.assert_array_equal(infos["_goal"], mask)
    np.testing.assert_array_equal(infos["goal_state"][mask], other["goal_state"][mask])
    assert_same(ours.step(actions), theirs.step(actions))


@pytest.mark.parametrize("id", IDS)
def test_what_was_returned_is_never_written_again(id: str) -> None:
    envs = vectorised(id)
    kept = [envs.reset(seed=0)]
    copies = [copy.deepcopy(kept[0])]
    for actions in actions_of(envs, 2 * LIMIT):
        kept.append((*envs.step(actions), envs.render()))
        copies.append(copy.deepcopy(kept[-1]))
    assert_same(kept, copies)


@pytest.mark.parametrize("id", IDS)
def test_edits_of_single_envs_count(id: str) -> None:
    ours, theirs = vectorised(id), one_by_one(id)
    for envs in (ours, theirs):
        envs.reset(seed=4)
        env = envs.envs[2].unwrapped
        other = env.sample_goal(7)
        env._set_goal_state(other)
        env._set_state(env.sample_goal(8))
        envs.envs[3].reset(seed=11, options={"variation": ["all"]})
    for actions in actions_of(theirs, 5):
        assert_same(ours.step(actions), theirs.step(actions))
        assert_same(ours.render(), theirs.render())


@pytest.mark.parametrize("id", IDS)
def test_illegal_arguments_are_refused(id: str) -> None:
    envs = vectorised(id)
    with pytest.raises(gym.error.ResetNeeded):
        envs.step(np.zeros(envs.action_space.shape, envs.action_space.dtype))
    envs.reset(seed=0)
    for actions in (np.full(envs.action_space.shape, np.nan), np.zeros((N - 1, 2))):
        with pytest.raises(ContractError, match="action"):
            envs.step(actions)
    with pytest.raises(ContractError, match="seed"):
        envs.reset(seed=[1, 2])
    with pytest.raises(ContractError, match="options"):
        envs.reset(options=[None])
    with pytest.raises(ContractError, match="reset_mask"):
        envs.reset(options={"reset_mask": [True] * N})
    with pytest.raises(ContractError, match="num_envs"):
        gym.make_vec(id, 0, vectorization_mode="vector_entry_point")


def test_experts_drive_vector_envs() -> None:
    from stable_worldmodel.envs.two_room import ExpertPolicy

    envs = vectorised("swm/TwoRoom-v1")
    envs.reset(seed=0)
    policy = ExpertPolicy()
    policy.set_env(envs)
    _, infos = envs.reset(seed=0)
    start = infos["distance_to_target"]
    for _ in range(4):
        infos = envs.step(policy.get_action(infos))[4]
    assert (infos["distance_to_target"] != start).all()


# ---------------------------------------------------------------------- rules of motion
unit = st.floats(-1, 1, width=32)
pixel = st.floats(0, 224, width=32)
doors = st.lists(st.tuples(st.integers(0, 223), st.integers(1, 21)), min_size=1, max_size=3).map(tuple)
layouts = st.builds(
    Layout, st.integers(0, 1), st.integers(7, 41), doors, st.floats(7, 14, width=32), st.floats(1.75, 10.5, width=32),
    st.booleans(),
)  # fmt: skip
fields = st.integers(1, 3).flatmap(
    lambda n: st.builds(
        Field,
        st.just(n),
        st.lists(st.tuples(*[st.floats(-4, 4, width=32)] * 2), min_size=n * n, max_size=n * n).map(tuple),
        st.floats(7, 14, width=32),
        st.floats(1.75, 10.5, width=32),
    )
)
length = st.floats(0, 5, width=32)
size = st.floats(0.5, 1.5, width=32)
walls = st.lists(st.tuples(length, length, size, size), max_size=6)
mazes = st.builds(Maze, walls.map(tuple), st.floats(0.0625, 0.5, width=32), st.floats(0.0625, 2, width=32))


def check_moves(rules: list[Any], together: Any, starts: Any, actions: Any) -> None:
    for i, rule in enumerate(rules):
        together.put(i, rule)
    ends = together.move(np.array(starts, np.float64), np.array(actions, np.float64))
    expected = [rule.move(start, action) for rule, start, action in zip(rules, starts, actions, strict=True)]
    np.testing.assert_array_equal(ends, expected)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(layouts, st.tuples(pixel, pixel), st.tuples(unit, unit)), min_size=1, max_size=6))
def test_layouts_move_like_each_of_them(cases: list[Any]) -> None:
    rules, starts, actions = map(list, zip(*cases, strict=True))
    check_moves(rules, Layouts(len(cases)), starts, actions)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(fields, st.tuples(pixel, pixel), st.tuples(unit, unit)), min_size=1, max_size=6))
def test_fields_move_like_each_of_them(cases: list[Any]) -> None:
    rules, starts, actions = map(list, zip(*cases, strict=True))
    check_moves(rules, Fields(len(cases)), starts, actions)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(mazes, st.tuples(length, length), st.tuples(unit, unit)), min_size=1, max_size=6))
def test_mazes_move_like_each_of_them(cases: list[Any]) -> None:
    rules, starts, actions = map(list, zip(*cases, strict=True))
    check_moves(rules, Mazes(len(cases)), starts, actions)
