"""TwoRoom: the contract of all envs, the recordings of the public implementation, and what is its own."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from envs.contract import RestorableContract
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from stable_worldmodel.envs.two_room import TwoRoomEnv
from stable_worldmodel.envs.two_room.drawing import Dot, Palette, draw_rooms
from stable_worldmodel.envs.two_room.geometry import Layout, is_behind_wall, legacy_move, merged, swept_move
from stable_worldmodel.errors import ContractError

DATA = Path(__file__).parents[1] / "data" / "two_room"
RECORDED = json.loads((DATA / "two_room.json").read_text())
DEFAULT = Layout(axis=1, thickness=10, doors=((49, 14),), radius=7.0, speed=5.0)
RED, WHITE, BLACK = (255, 0, 0), (255, 255, 255), (0, 0, 0)


class TestTwoRoom(RestorableContract):
    id = "swm/TwoRoom-v1"
    revealing = {"rendering.render_target": 1}  # noqa: RUF012
    inert = {"task.min_steps": "read by target_rule='other_room' only"}  # noqa: RUF012


class TestTwoRoomWithFarTargetsAndSweptCollisions(RestorableContract):
    id = "swm/TwoRoom-v1"
    kwargs = {"target_rule": "other_room", "collision": "swept"}  # noqa: RUF012
    revealing = {"rendering.render_target": 1}  # noqa: RUF012


def make(size: tuple[int, int] = (16, 16), **kwargs: Any) -> TwoRoomEnv:
    env = TwoRoomEnv(**kwargs)
    env.render_shape = size
    return env


def reset_to(env: TwoRoomEnv, state=None, target_state=None, **values: Any):
    given = {name.replace("__", "."): value for name, value in values.items()}
    options = {"variation": [], "variation_values": given, "state": state, "target_state": target_state}
    return env.reset(seed=0, options=options)


# ---------------------------------------------------------------------- recordings of the public implementation
@pytest.mark.parametrize("case", RECORDED["cases"], ids=lambda case: case["name"])
def test_trajectory_is_the_recorded_one(case: dict) -> None:
    data = np.load(DATA / "two_room.npz")
    steps = {key: data[f"{case['name']}/{key}"] for key in ("actions", "obs", "terminated", "distance")}
    env = make()
    options = {key: case[key] for key in ("variation_values", "state", "target_state")}
    observation, _ = env.reset(seed=0, options={"variation": [], **options})
    np.testing.assert_allclose(observation, data[f"{case['name']}/initial_obs"], atol=1e-3)
    for t, action in enumerate(steps["actions"]):
        observation, reward, terminated, truncated, info = env.step(action)
        np.testing.assert_allclose(observation, steps["obs"][t], atol=1e-3)
        assert info["distance_to_target"] == pytest.approx(steps["distance"][t], abs=1e-3)
        assert (reward, terminated, truncated) == (0.0, steps["terminated"][t], False)


@pytest.mark.parametrize("frame", RECORDED["frames"], ids=lambda frame: frame["file"])
def test_picture_is_the_recorded_one(frame: dict) -> None:
    env = make((224, 224))
    options = {key: frame[key] for key in ("variation_values", "state", "target_state")}
    env.reset(seed=0, options={"variation": [], **options})
    recorded = np.asarray(Image.open(DATA / frame["file"])).astype(int)
    difference = np.abs(env.render() - recorded)
    assert difference.max() <= 2
    assert difference.mean() < 0.3


# ---------------------------------------------------------------------- motion
@pytest.mark.parametrize(
    ("start", "action", "visited"),
    [
        ((85, 112), (1, 0), [(90, 112), (95, 112), (100, 112), (99.5, 112), (99.5, 112)]),  # bounces off the wall
        ((112, 49), (0, 1), [(112, 54), (112, 59), (112, 64), (124.5, 69), (124.5, 74)]),  # teleports out of the door
        ((30, 30), (-1, -1), [(25, 25), (21, 21), (21, 21)]),  # stops at the borders
        ((60, 112), (9, -9), [(65, 107)]),  # clamped
    ],
)
def test_legacy_collisions(start, action, visited) -> None:
    env = make()
    reset_to(env, state=start)
    assert [tuple(env.step(np.array(action, np.float32))[4]["state"]) for _ in visited] == visited


@pytest.mark.parametrize(
    ("start", "action", "visited"),
    [
        ((85, 112), (1, 0), [(90, 112), (95, 112), (100, 112), (100, 112)]),  # stops at the wall
        ((85, 112), (1, 1), [(90, 117), (95, 122), (100, 127), (100, 132)]),  # slides along it
        ((112, 49), (0, 1), [(112, 54), (112, 56), (112, 56)]),  # stays in the door
        ((99, 57), (1, 0), [(100, 57), (100, 57)]),  # does not fit through the door one pixel off
        ((98, 56), (1, 0), [(103, 56), (108, 56)]),  # just fits
        ((101, 43), (1, -1), [(106, 42), (111, 42)]),  # slides along the side of the door
    ],
)
def test_swept_collisions(start, action, visited) -> None:
    env = make(collision="swept")
    reset_to(env, state=start)
    assert [tuple(env.step(np.array(action, np.float32))[4]["state"]) for _ in visited] == visited


layouts = st.builds(
    Layout,
    axis=st.integers(0, 1),
    thickness=st.integers(7, 41),
    doors=st.lists(st.tuples(st.integers(0, 223), st.integers(1, 21)), min_size=1, max_size=3).map(tuple),
    radius=st.floats(7, 14),
    speed=st.floats(1.75, 10.5),
    swept=st.just(True),
)
coordinates = st.floats(14, 210)
components = st.floats(-1, 1)


def overlaps_wall(layout: Layout, position: tuple[float, float]) -> bool:
    """Whether the agent's bounding square, shrunk by a rounding error, touches the wall between the doors."""
    if abs(position[layout.across] - 112) >= layout.reach - 1e-6:
        return False
    along, r = position[1 - layout.across], layout.radius - 1e-6
    openings = merged((center - size, center + size) for center, size in layout.doors)
    return not any(low <= along - r and along + r <= high for low, high in openings)


@settings(max_examples=300, deadline=None)
@given(layouts, st.tuples(coordinates, coordinates), st.lists(st.tuples(components, components), max_size=10))
def test_swept_agent_never_overlaps_a_wall_or_a_border(layout, start, actions) -> None:
    position = swept_move(layout, start, (0.0, 0.0))
    for action in actions:
        position = layout.move(position, action)
        assert not overlaps_wall(layout, position)
        assert all(14 + layout.radius <= p <= 210 - layout.radius for p in position)


@settings(max_examples=200, deadline=None)
@given(layouts, st.tuples(coordinates, coordinates), st.tuples(components, components))
def test_swept_agent_moves_no_farther_than_its_action(layout, start, action) -> None:
    start = swept_move(layout, start, (0.0, 0.0))
    end = layout.move(start, action)
    for before, after, component in zip(start, end, action, strict=True):
        assert abs(after - before) <= abs(component) * layout.speed + 1e-9


@given(layouts, st.tuples(coordinates, coordinates), st.tuples(components, components))
def test_both_axes_obey_the_same_rules(layout, start, action) -> None:
    turned = replace(layout, axis=1 - layout.axis)
    for move in (legacy_move, swept_move):
        assert move(turned, start[::-1], action[::-1]) == pytest.approx(move(layout, start, action)[::-1])


@pytest.mark.parametrize("action", [[0.0], [[0.0, 0.0]], [np.nan, 0.0], [np.inf, 0.0]])
def test_bad_actions_are_refused(action) -> None:
    env = make()
    env.reset(seed=0)
    with pytest.raises(ContractError, match="action"):
        env.step(np.array(action))


def test_step_and_render_need_a_reset() -> None:
    for call in (lambda env: env.step(np.zeros(2)), TwoRoomEnv.render):
        with pytest.raises(gym.error.ResetNeeded, match="reset"):
            call(make())


# ---------------------------------------------------------------------- episodes
def test_episode_terminates_within_sixteen_pixels_of_the_target() -> None:
    env = make()
    reset_to(env, state=(60, 112), target_state=(86, 112))
    flags = [env.step(np.array([1.0, 0.0]))[2] for _ in range(3)]
    assert flags == [False, False, True]  # at 21, 16 and 11 px


def test_observation_holds_agent_target_and_the_doors_that_exist() -> None:
    env = make()
    door = {"door__number": 2, "door__position": [40, 90, 150]}
    observation, _ = reset_to(env, **door)
    assert observation.tolist() == [60, 112, 164, 112, 112, 40, 112, 90, 0, 0]
    observation, _ = reset_to(env, wall__axis=0, **door)
    assert observation[4:].tolist() == [40, 112, 90, 112, 0, 0]


def test_info_describes_agent_and_target() -> None:
    _, info = reset_to(make(), state=(50, 60), target_state=(80, 100))
    assert info["env_name"] == "TwoRoom"
    assert info["distance_to_target"] == 50.0
    for key, value in {"state": (50, 60), "proprio": (50, 60), "pos_agent": (50, 60)}.items():
        assert (key, info[key].tolist(), info[key].dtype) == (key, list(value), np.float32)
    for key in ("goal_state", "pos_target"):
        assert info[key].tolist() == [80, 100]


def test_goal_shows_the_agent_at_the_target() -> None:
    env = make((64, 64))
    _, info = reset_to(env, target_state=(170, 60))
    env._set_state((170, 60))
    np.testing.assert_array_equal(info["goal"], env.render())


def test_setting_a_goal_moves_target_factor_and_goal_picture() -> None:
    env = make((64, 64))
    reset_to(env)
    env._set_goal_state((30, 200))
    info = env.step(np.zeros(2))[4]
    assert info["goal_state"].tolist() == [30, 200]
    assert env.variation_space.value_of("target.position").tolist() == [30, 200]
    env._set_state((30, 200))
    np.testing.assert_array_equal(info["goal"], env.render())


@pytest.mark.parametrize("state", [(1, 2, 3), (-1, 50), (50, 225), (np.nan, 0)])
def test_states_outside_the_picture_are_refused(state) -> None:
    with pytest.raises(ContractError, match="state"):
        reset_to(make(), state=state)


def test_older_datasets_restore_from_pos_agent() -> None:
    env = make()
    options = env.reset_options_from_dataset({"pos_agent": np.array([40.0, 50.0])}, {"goal_pos_agent": [[80, 90]]})
    _, info = env.reset(seed=0, options=options)
    assert (info["state"].tolist(), info["goal_state"].tolist()) == ([40, 50], [80, 90])


@pytest.mark.parametrize(
    "kwargs", [{"render_mode": "human"}, {"target_rule": "near"}, {"collision": "none"}, {"init_value": {"a.b": 1}}]
)
def test_constructor_refuses_unknown_choices(kwargs) -> None:
    with pytest.raises(ContractError):
        TwoRoomEnv(**kwargs)


def test_init_value_replaces_a_default_for_good() -> None:
    env = make(init_value={"agent.speed": 2.0})
    for _ in range(2):
        env.reset(seed=0, options={"variation": []})
        assert env.layout().speed == 2.0


# ---------------------------------------------------------------------- factors that must fit together
def test_turned_wall_mirrors_the_default_start_and_target() -> None:
    _, info = reset_to(make(), wall__axis=0)
    assert (info["state"].tolist(), info["goal_state"].tolist()) == ([112, 60], [112, 164])


def test_large_agent_widens_doors_that_are_too_small() -> None:
    env = make()
    reset_to(env, agent__radius=14.0)
    assert env.variation_space.value_of("door.size").tolist() == [16, 16, 16]


def test_given_values_are_never_repaired() -> None:
    with pytest.raises(ContractError, match=r"agent\.position"):
        reset_to(make(), wall__axis=0, agent__position=(60, 112))


def test_far_targets_lie_in_the_other_room_min_steps_away() -> None:
    env = make(target_rule="other_room")
    for seed in range(30):
        _, info = env.reset(seed=seed, options={"variation": ["agent.position", "target.position"]})
        (x, _), (goal_x, _) = info["state"], info["goal_state"]
        assert (x < 112) != (goal_x < 112)
        way = np.hypot(*(info["state"] - (112, 49))) + np.hypot(*(info["goal_state"] - (112, 49)))
        assert way >= 25 * 5
        assert abs(goal_x - 112) > 5 + 7


def test_target_rule_asks_for_no_more_than_the_rooms_allow() -> None:
    fast = replace(DEFAULT, speed=10.5)
    assert is_behind_wall(fast, (30, 30), (209, 209), min_steps=114)
    assert not is_behind_wall(fast, (30, 30), (130, 60), min_steps=114)


# ---------------------------------------------------------------------- picture
def test_default_picture_has_the_published_pixels() -> None:
    env = make((224, 224))
    reset_to(env, state=(60, 112))
    picture = env.render()
    assert [picture[112, x].tolist() for x in (60, 67, 74)] == [[255, 0, 0], [255, 100, 100], [255, 220, 220]]
    assert np.flatnonzero(picture[150, 100:130, 1] == 0).tolist() == list(range(7, 18))  # columns 107..117
    assert np.flatnonzero(picture[20:100, 112, 1] == 255).tolist() == list(range(15, 44))  # rows 35..63
    assert np.flatnonzero(picture[:, 30, 1] == 0).tolist() == [10, 11, 12, 13, 210, 211, 212, 213]


def test_border_color_counts_once_it_is_not_the_default() -> None:
    env = make((224, 224))
    reset_to(env, wall__color=(10, 20, 30))
    assert env.render()[11, 50].tolist() == [10, 20, 30]
    reset_to(env, wall__color=(10, 20, 30), wall__border_color=(0, 0, 200))
    assert env.render()[11, 50].tolist() == [0, 0, 200]
    assert env.render()[150, 112].tolist() == [10, 20, 30]


@pytest.mark.parametrize("size", [(64, 64), (96, 96), (32, 32), (48, 128)])
@pytest.mark.parametrize("seed", range(4))
def test_small_picture_is_the_large_one_averaged(size, seed) -> None:
    options = {"variation": ["all"], "variation_values": {"rendering.render_target": 1}}
    small, large = make(size), make((224, 224))
    small.reset(seed=seed, options=options)
    large.reset(seed=seed, options=options)
    error = np.abs(small.render() - area_average(large.render(), size))
    assert error.mean() < 0.25
    assert error.max() < 8  # where a dot lies on an edge


def area_average(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    rows, columns = (overlap(small, large) for small, large in zip(size, picture.shape, strict=False))
    return np.moveaxis(rows @ np.moveaxis(picture.astype(float), 2, 0) @ columns.T, 0, 2)


def overlap(small: int, large: int) -> np.ndarray:
    """(small, large): the share that each of `large` pixels has in each of `small` ones."""
    edges, pixels = np.arange(small + 1) * large / small, np.arange(large)
    covered = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return np.clip(covered, 0, 1) * small / large


@pytest.mark.parametrize("center", [(0, 0), (223, 223), (-500, 100), (100, 900), (-3, 230)])
def test_dot_may_leave_the_picture(center) -> None:
    whole = np.zeros((224, 224, 3), np.uint8)
    dot = Dot(RED, 7.0, (224, 224))
    dot.draw(whole, center)
    x, y = center
    expected = 255 * np.exp(-((np.arange(224)[None] - x) ** 2 + (np.arange(224)[:, None] - y) ** 2) / 98)
    assert np.abs(whole[..., 0] - expected).max() <= 0.51
    assert not whole[..., 1:].any()


def test_overlapping_doors_are_painted_once() -> None:
    layout = replace(DEFAULT, doors=((60, 20), (70, 20)))
    picture = draw_rooms(layout, Palette(WHITE, (0, 200, 0), BLACK, BLACK), (64, 64))
    assert picture[18:25, 32].tolist() == [[0, 200, 0]] * 7
