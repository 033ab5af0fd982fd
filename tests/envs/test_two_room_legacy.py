"""The older TwoRoom: the contract of all envs, geometry, physics and energy."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
from envs.contract import EnvContract
from envs.lifted import LiftedObservations
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st

from stable_worldmodel.envs.two_room.legacy_env import TwoRoomEnv, lens_area
from stable_worldmodel.envs.two_room.legacy_factors import LegacyLayout
from stable_worldmodel.errors import ContractError
from stable_worldmodel.utils import flatten_dict

DEFAULT = LegacyLayout(axis=1, thickness=19, doors=((247, 75),), radius=15.0, target_radius=15.0, speed=10.0)


class TestTwoRoomLegacy(LiftedObservations, EnvContract):
    id = "swm/TwoRoom-v0"
    kwargs = {"render_target": True}  # noqa: RUF012
    revealing = {"door.number": 3, "door.position": (60, 200, 350)}  # noqa: RUF012

    def make(self, size: tuple[int, int] | None = (32, 32)) -> Any:
        env = TwoRoomEnv(render_mode="rgb_array", **self.kwargs)  # gymnasium.make warns that there is a newer version
        if size is not None:
            env.render_shape = size
        return env

    def test_gymnasium_finds_no_fault(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            check_env(self.make(), skip_render_check=True)

    def actions(self, env: Any, count: int = 20) -> list[Any]:
        return [np.array([1.0, 0.05 * i], np.float32) for i in range(count)]  # towards the wall


def make(size: tuple[int, int] = (16, 16), **kwargs: Any) -> TwoRoomEnv:
    env = TwoRoomEnv(**kwargs)
    env.render_shape = size
    return env


def reset_to(env: TwoRoomEnv, state=None, target_state=None, **values: Any):
    given = {name.replace("__", "."): value for name, value in values.items()}
    options = {"variation": [], "variation_values": given, "state": state, "target_state": target_state}
    return env.reset(seed=0, options=options)


def walk(env: TwoRoomEnv, action: tuple[float, float], steps: int):
    return [env.step(np.array(action))[4]["pos_agent"].tolist() for _ in range(steps)][-1]


# ---------------------------------------------------------------------- physics
def test_free_motion_is_action_times_speed() -> None:
    env = make()
    reset_to(env, state=(100, 100))
    assert env.step(np.array([1.0, -0.5]))[0]["proprio"].tolist() == pytest.approx([110, 95], abs=1e-3)
    reset_to(env, state=(100, 100), agent__speed=20.0)
    assert env.step(np.array([0.3, 9.0]))[0]["proprio"].tolist() == pytest.approx([106, 120], abs=1e-3)


def test_wall_stops_the_agent_and_lets_it_slide() -> None:
    env = make()
    reset_to(env, state=(200, 100))
    x, y = walk(env, (1.0, 0.3), 12)
    assert x == pytest.approx(247 - 19 / 4 - 15, abs=1e-3)
    assert y == pytest.approx(136, abs=1e-3)


def test_agent_passes_the_door() -> None:
    env = make()
    reset_to(env, state=(200, 284))
    x, y = walk(env, (1.0, 0.0), 10)
    assert (x, y) == (pytest.approx(300, abs=0.1), pytest.approx(284, abs=0.1))


@pytest.mark.parametrize("action", [(-1, -1), (1, 1), (-1, 1)])
def test_borders_hold_the_agent(action) -> None:
    env = make()
    reset_to(env, state=(100 if action[0] < 0 else 400, 256))
    for place in walk(env, action, 60):
        assert 15 <= place <= 512 - 15


@settings(max_examples=50, deadline=None)
@given(
    st.integers(0, 1),
    st.integers(9, 33),
    st.lists(st.tuples(st.integers(0, 493), st.integers(10, 99)), min_size=1, max_size=3).map(tuple),
    st.floats(15, 30),
    st.lists(st.tuples(st.floats(-1, 1), st.floats(-1, 1)), min_size=1, max_size=40),
)
def test_agent_never_gets_through_a_wall(axis, thickness, doors, radius, actions) -> None:
    layout = LegacyLayout(axis, thickness, doors, radius, 15.0, speed=20.0)
    position = (100.0, 100.0)
    for action in actions:
        position, _ = layout.slide(position, action)
        for (x0, x1), (y0, y1) in [*layout.wall_rectangles(), *layout.border_rectangles()]:
            x, y = position
            gap = math.hypot(x - min(max(x, x0), x1), y - min(max(y, y0), y1))
            assert gap > radius - 2.5  # squeezed between two corners it may overlap by one part of a step


def test_contacts_are_counted() -> None:
    env = make()
    reset_to(env, state=(200, 100))
    counts = [env.step(np.array([1.0, 0.0]))[4]["n_contacts"] for _ in range(6)]
    assert (counts[0], counts[-1]) == (0, 1)


def test_a_step_is_a_function_of_position_and_action() -> None:
    env, other = make(), make()
    reset_to(env, state=(200, 100))
    for _ in range(6):
        state = env.step(np.array([1.0, 0.2]))[0]["proprio"]
    reset_to(other, state=state)
    np.testing.assert_array_equal(
        env.step(np.array([1.0, 0.2]))[0]["proprio"], other.step(np.array([1.0, 0.2]))[0]["proprio"]
    )


# ---------------------------------------------------------------------- task
def test_energy_runs_out() -> None:
    env = make()
    reset_to(env, agent__max_energy=50)
    steps = [env.step(np.zeros(2)) for _ in range(50)]
    assert [step[3] for step in steps] == [False] * 49 + [True]
    assert steps[0][4]["energy"] == 49
    assert steps[-1][0]["state"][4] == 0
    assert steps[0][4]["max_energy"] == 50


def test_half_an_overlap_is_success() -> None:
    env = make()
    reset_to(env, state=(100, 100), target_state=(130, 100))
    rows = [env.step(np.array([1.0, 0.0])) for _ in range(3)]
    assert [(row[1], row[2]) for row in rows] == [(-0.01, False), (1.0, True), (1.0, True)]
    assert rows[-1][4]["fraction_of_agent"] == pytest.approx(1.0, abs=1e-3)


def test_state_holds_agent_target_energy_and_speed() -> None:
    observation, info = reset_to(make(), state=(100, 120), target_state=(300, 310))
    assert observation["state"].tolist() == [100, 120, 300, 310, 100, 10]
    assert info["target_pos"].tolist() == [300, 310]
    np.testing.assert_array_equal(info["target"], info["goal"])


@given(st.floats(1, 30), st.floats(1, 30), st.floats(0, 70))
def test_lens_area_lies_between_nothing_and_the_smaller_disc(r, s, distance) -> None:
    area = lens_area(r, s, distance)
    assert -1e-6 <= area <= math.pi * min(r, s) ** 2 + 1e-6
    assert area == pytest.approx(lens_area(s, r, distance), abs=1e-6)
    assert lens_area(r, s, distance + 0.5) <= area + 1e-6


def test_lens_area_of_unit_discs() -> None:
    assert lens_area(1, 1, 1) == pytest.approx(2 * math.pi / 3 - math.sqrt(3) / 2)


# ---------------------------------------------------------------------- geometry
def test_doors_overlap_into_one_and_end_with_the_wall() -> None:
    layout = LegacyLayout(1, 19, ((200, 50), (230, 50), (470, 75)), 15.0, 15.0, 10.0)
    assert layout.door_spans() == [(200, 280), (470, 494)]
    assert [span for _, span in layout.wall_rectangles()] == [(0, 199), (281, 469)]


def test_horizontal_wall_is_the_vertical_one_turned() -> None:
    turned = LegacyLayout(0, 19, ((247, 75),), 15.0, 15.0, 10.0)
    assert [(y, x) for x, y in turned.wall_rectangles()] == DEFAULT.wall_rectangles()


def test_agent_and_target_are_drawn_in_different_rooms() -> None:
    env = make()
    for seed in range(20):
        _, info = env.reset(seed=seed)
        assert (info["pos_agent"][0] < 247) != (info["pos_target"][0] < 247)
        for key in ("pos_agent", "pos_target"):
            assert not DEFAULT.collides(tuple(info[key]), 15.0)


# ---------------------------------------------------------------------- restoring
def test_a_recorded_row_is_restored() -> None:
    env = make(render_target=True)
    env.reset(seed=3, options={"variation": ["all"]})
    for action in ([1.0, 0.5], [0.2, -1.0]):
        observation, _, _, _, info = env.step(np.array(action))
    goal = np.array([*info["pos_target"], 0, 0, 0, 0])
    factors = {f"variation.{name}": np.atleast_1d(v) for name, v in flatten_dict(env.variation_space.value).items()}
    other = make(render_target=True)
    options = other.reset_options_from_dataset({"state": observation["state"], **factors}, {"goal_state": goal})
    restored, found = other.reset(options=options)
    np.testing.assert_array_equal(restored["state"], observation["state"])
    np.testing.assert_array_equal(found["goal"], info["goal"])
    np.testing.assert_array_equal(other.render(), env.render())
    np.testing.assert_array_equal(other.step(np.ones(2))[0]["state"], env.step(np.ones(2))[0]["state"])


def test_missing_columns_and_bad_energy_are_refused() -> None:
    with pytest.raises(KeyError, match="state"):
        make().reset_options_from_dataset({}, {})
    with pytest.raises(ContractError, match="energy"):
        make().reset(options={"energy": 0})


# ---------------------------------------------------------------------- picture
def test_picture_shows_walls_doors_borders_and_a_rimmed_disc() -> None:
    env = make((512, 512), render_target=True)
    reset_to(env, state=(100, 100), target_state=(400, 400))
    picture = env.render()
    assert picture[100, 100].tolist() == [255, 0, 0]
    assert picture[400, 400].tolist() == [0, 255, 0]
    assert picture[100, 247].tolist() == [138, 152, 174]  # the lighter middle of the wall
    assert picture[284, 247].tolist() == [255, 255, 255]  # the door
    assert picture[505, 247].tolist() == [255, 255, 255]  # below the wall's end
    reset_to(env, state=(100, 100), agent__color=(100, 50, 10))
    assert env.render()[100, 113].tolist() == [100, 50, 10]
    assert env.render()[100, 100].tolist() == [120, 60, 12]
