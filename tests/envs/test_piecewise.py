"""Piecewise: the contract of all envs, the recordings of the public implementation, and what is its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from envs.contract import RestorableContract
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from stable_worldmodel.envs.piecewise import ExpertPolicy, PiecewiseEnv
from stable_worldmodel.envs.piecewise.factors import Field
from stable_worldmodel.errors import ContractError

DATA = Path(__file__).parents[1] / "data" / "piecewise"
RECORDED = json.loads((DATA / "piecewise.json").read_text())


class TestPiecewise(RestorableContract):
    id = "swm/Piecewise-v0"
    revealing = {  # noqa: RUF012
        "rendering.render_target": 1,
        "rendering.render_zones": 1,
        "rendering.render_bias_field": 1,
    }
    inert = {"task.min_steps": "kept because published datasets have it"}  # noqa: RUF012


class TestPiecewiseOfNineZones(RestorableContract):
    id = "swm/Piecewise-v0"
    kwargs = {"grid_n": 3}  # noqa: RUF012
    revealing = TestPiecewise.revealing
    inert = TestPiecewise.inert


def make(size: tuple[int, int] = (16, 16), **kwargs: Any) -> PiecewiseEnv:
    env = PiecewiseEnv(**kwargs)
    env.render_shape = size
    return env


# ---------------------------------------------------------------------- recordings of the public implementation
@pytest.mark.parametrize("case", RECORDED["cases"], ids=lambda case: case["name"])
def test_trajectory_is_the_recorded_one(case: dict) -> None:
    data = np.load(DATA / "piecewise.npz")
    steps = {key: data[f"{case['name']}/{key}"] for key in ("actions", "obs", "terminated", "distance")}
    env = make(**case["kwargs"])
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
    env = make((224, 224), **frame["kwargs"])
    options = {key: frame[key] for key in ("variation_values", "state", "target_state")}
    env.reset(seed=0, options={"variation": [], **options})
    recorded = np.asarray(Image.open(DATA / frame["file"])).astype(int)
    difference = np.abs(env.render() - recorded)
    assert difference.max() <= 2
    assert difference.mean() < 0.3


# ---------------------------------------------------------------------- motion
def test_zone_adds_its_drift() -> None:
    env = make()
    env.reset(seed=0, options={"variation": []})
    assert [env.step(np.array([1.0, 0.0]))[0][0] for _ in range(4)] == [63, 66, 69, 72]


@given(st.integers(1, 5), st.tuples(st.floats(0, 224), st.floats(0, 224)))
def test_every_point_has_the_zone_it_is_drawn_in(n, position) -> None:
    zone = Field(n, (), radius=7.0, speed=5.0).zone(position)
    row, column = divmod(zone, n)
    for p, k in zip(position, (column, row), strict=True):
        inside = min(max(p, 14), 209.999)
        assert 14 + k * 196 / n <= inside + 1e-9
        assert inside - 1e-9 <= 14 + (k + 1) * 196 / n


@given(
    st.tuples(st.floats(14, 209), st.floats(14, 209)),
    st.tuples(st.floats(-1, 1), st.floats(-1, 1)),
    st.floats(7, 14),
    st.lists(st.tuples(st.floats(-4, 4), st.floats(-4, 4)), min_size=4, max_size=4),
)
def test_agent_stays_inside_the_borders(start, action, radius, biases) -> None:
    end = Field(2, tuple(biases), radius, speed=10.5).move(start, action)
    assert all(14 + radius <= p <= 210 - radius for p in end)


def test_default_drifts_and_colours_go_round() -> None:
    space = PiecewiseEnv().variation_space
    drifts = [space.value_of(f"zones.bias_{i}").round(6).tolist() for i in range(4)]
    assert drifts == [[2, 0], [0, 2], [-2, 0], [0, -2]]
    colors = [tuple(space.value_of(f"zones.color_{i}")) for i in range(4)]
    assert colors == [(255, 191, 191), (223, 255, 191), (191, 255, 255), (223, 191, 255)]


def test_arrows_point_where_the_zone_drifts() -> None:
    env = make((224, 224))
    values = {"rendering.render_bias_field": 1} | {f"zones.bias_{i}": (0, 0) for i in range(1, 4)}
    env.reset(seed=0, options={"variation": [], "variation_values": values, "state": (200, 200)})
    inside = env.render()[15:209, 15:209]
    dark = (inside < 128).all(axis=2)
    rows, columns = np.nonzero(dark)
    assert len(rows) > 0
    assert rows.max() < 98  # none in the lower zones
    assert columns.max() < 98  # none in the right ones
    assert np.ptp(np.flatnonzero(dark[12:20].any(axis=0))) > 60  # three lie side by side


def test_grid_without_zones_is_refused() -> None:
    with pytest.raises(ContractError, match="grid_n"):
        PiecewiseEnv(grid_n=0)


# ---------------------------------------------------------------------- expert
def steps_to_target(env: PiecewiseEnv, policy: ExpertPolicy, seed: int, max_steps: int = 100) -> int | None:
    policy.set_env(env)
    _, info = env.reset(seed=seed)
    for t in range(max_steps):
        _, _, terminated, _, info = env.step(policy.get_action(info))
        if terminated:
            return t + 1
    return None


def test_expert_lands_on_a_target_within_reach() -> None:
    env, policy = make(), ExpertPolicy()
    policy.set_env(env)
    _, info = env.reset(seed=0, options={"variation": [], "state": (60, 60), "target_state": (63, 58)})
    _, _, _, _, info = env.step(policy.get_action(info))
    np.testing.assert_allclose(info["state"], (63, 58), atol=1e-5)


@pytest.mark.parametrize("kwargs", [{}, {"grid_n": 3}])
def test_expert_reaches_every_target_of_the_default_env(kwargs) -> None:
    env = make(**kwargs)
    assert all(steps_to_target(env, ExpertPolicy(), seed) for seed in range(60))


def test_noise_is_clipped_and_repeatable() -> None:
    def actions(seed: int) -> np.ndarray:
        env, policy = make(), ExpertPolicy(action_noise=2.0, action_repeat_prob=0.3, seed=seed)
        policy.set_env(env)
        _, info = env.reset(seed=0)
        policy.reset([0], [7])
        chosen = []
        for _ in range(40):
            chosen.append(policy.get_action(info))
            info = env.step(chosen[-1])[4]
        return np.stack(chosen)

    first = actions(1)
    assert np.abs(first).max() <= 1.0
    assert (first[1:] == first[:-1]).all(axis=1).any()
    np.testing.assert_array_equal(first, actions(1))
    assert not np.array_equal(first, actions(2))
