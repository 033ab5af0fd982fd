"""Discrete, MultiDiscrete, Box and RGBBox: values, defaults, coercion, constraints, sampling."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from toy_spaces import equal

from stable_worldmodel import spaces
from stable_worldmodel.errors import ContractError
from stable_worldmodel.spaces import Box, Dict, Discrete, MultiDiscrete, RGBBox, SamplingError

# Name in both packages and arguments of both constructors.
LEAVES = {
    "discrete": ("Discrete", {"n": 5, "start": 3}),
    "multi_discrete": ("MultiDiscrete", {"nvec": [4, 5], "start": [1, -2]}),
    "box": ("Box", {"low": -2, "high": 3, "shape": (2, 3), "dtype": np.float32}),
    "half_open_box": ("Box", {"low": 0, "high": np.inf, "shape": (2,), "dtype": np.float64}),
    "integer_box": ("Box", {"low": -3, "high": 4, "shape": (2,), "dtype": np.int16}),
    "scalar_box": ("Box", {"low": 20, "high": 60, "shape": (), "dtype": np.float64}),
}


each_leaf = pytest.mark.parametrize(("name", "arguments"), LEAVES.values(), ids=LEAVES)


def leaf(name: str, arguments: dict, **kwargs):
    return getattr(spaces, name)(**arguments, **kwargs)


def is_even(value) -> bool:
    return value % 2 == 0


class TestLeaf:
    @each_leaf
    def test_draws_what_gymnasium_draws_for_the_same_seed(self, name, arguments):
        ours, theirs = leaf(name, arguments, seed=5), getattr(gym.spaces, name)(**arguments, seed=5)
        for _ in range(20):
            ours_drawn, theirs_drawn = ours.sample(), theirs.sample()
            np.testing.assert_allclose(ours_drawn, theirs_drawn, rtol=1e-6)
            assert np.asarray(ours_drawn).dtype == theirs_drawn.dtype
            assert isinstance(ours_drawn, np.ndarray if arguments.get("shape") is not None else object)
            assert ours_drawn in theirs

    @each_leaf
    def test_a_sample_becomes_the_value_unless_told_otherwise(self, name, arguments):
        space = leaf(name, arguments, seed=0)
        first = space.sample()
        assert equal(space.value, first)
        space.sample(set_value=False)
        assert equal(space.value, first)

    @each_leaf
    def test_has_no_value_without_default(self, name, arguments):
        space = leaf(name, arguments)
        assert space.init_value is None
        assert space.value is None
        assert not space.check()
        space.sample()
        assert space.check()
        space.reset()
        assert space.value is None

    @each_leaf
    def test_reset_returns_to_the_default(self, name, arguments):
        default = leaf(name, arguments, seed=1).sample()
        space = leaf(name, arguments, init_value=default)
        assert equal(space.value, default)
        space.sample()
        space.reset()
        assert equal(space.value, default)
        assert equal(space.init_value, default)

    @each_leaf
    def test_seed_restarts_the_stream(self, name, arguments):
        space = leaf(name, arguments)
        space.seed(3)
        first = [space.sample() for _ in range(5)]
        space.seed(3)
        assert all(equal(space.sample(), drawn) for drawn in first)

    def test_changing_returned_arrays_changes_nothing(self):
        source = np.array([1.0, 2.0])
        space = Box(0, 9, (2,), np.float64, init_value=source)
        for array in (source, space.init_value, space.value, space.sample()):
            array[:] = -1
        assert space.check()
        assert (space.value >= 0).all()
        space.reset()
        space.value[:] = -1
        assert space.value.tolist() == space.init_value.tolist() == [1, 2]

    def test_discrete_values_are_ints(self):
        space = Discrete(3, init_value=np.int8(2))
        assert type(space.value) is int
        assert type(space.sample()) is int
        assert space.sample(np.array([0, 1, 0], np.int8)) == 1
        assert space.sample(mask=np.array([0, 0, 1], np.int8)) == 2

    def test_seeds_are_non_negative_integers(self):
        assert Discrete(2).seed(np.int64(4)) == 4
        with pytest.raises(ContractError, match="non-negative"):
            Discrete(2).seed(-1)
        with pytest.raises(TypeError):
            Discrete(2).seed(0.5)


class TestCoercion:
    @pytest.mark.parametrize(
        ("space", "given", "stored"),
        [
            (Discrete(9), 7.0, 7),
            (Discrete(9), np.array([3]), 3),
            (Box(0, 9, (2,), np.float32), [1, 2], np.array([1, 2], np.float32)),
            (Box(0, 9, (2,), np.float32), 3, np.array([3, 3], np.float32)),
            (Box(0, 9, (), np.float64), np.float32([4]), np.array(4.0)),
            (Box(0, 0.1, (1,), np.float32), np.float64(0.1), np.array([0.1], np.float32)),
            (RGBBox(), (255.0, 0, 7), np.array([255, 0, 7], np.uint8)),
            (MultiDiscrete([3, 3]), [2, 0], np.array([2, 0])),
        ],
    )
    def test_takes_the_dtype_and_shape_of_the_space(self, space, given, stored):
        space.set_value(given)
        assert equal(space.value, stored)

    @pytest.mark.parametrize(
        ("space", "given", "message"),
        [
            (Discrete(9), 9, "out of bounds"),
            (Discrete(9), 7.5, "without changing"),
            (Discrete(9), "7", "expected numbers"),
            (Discrete(9), [1, 2], "expected shape"),
            (RGBBox(), (256, 0, 0), "without changing"),
            (RGBBox(), (-1, 0, 0), "without changing"),
            (RGBBox(), (np.nan, 0, 0), "without changing"),
            (RGBBox(), (0, 0), "expected shape"),
            (Box(0, 1, (2,)), [0.5], "expected shape"),
            (Box(0, 1, (2,)), [[0.1, 0.2], [0.3]], "expected an array"),
            (Box(0, 1, (2,)), None, "expected numbers"),
            (Box(0, 1), np.nan, "out of bounds"),
            (Box(0, 1), 1e300, "out of bounds"),
        ],
    )
    def test_rejects_what_does_not_fit_and_keeps_the_old_value(self, space, given, message):
        space.sample()
        old = space.value
        for setter in (space.set_value, space.set_init_value):
            with pytest.raises(ContractError, match=message):
                setter(given)
        assert equal(space.value, old)
        assert space.init_value is None

    def test_a_default_outside_the_space_is_an_error_at_construction(self):
        with pytest.raises(ContractError, match="out of bounds"):
            Box(0, 1, init_value=2)
        with pytest.raises(ContractError, match="constrain_fn"):
            Discrete(5, init_value=3, constrain_fn=is_even)

    @given(st.data())
    def test_every_value_of_a_box_is_stored_exactly(self, data):
        dtype = np.dtype(data.draw(st.sampled_from(["u1", "i2", "i4", "i8", "f4", "f8"])))
        shape = data.draw(hnp.array_shapes(min_dims=0, max_dims=2, max_side=3))
        low, high = -1000 * (dtype.kind != "u"), 200
        elements = st.integers(low, high) if dtype.kind != "f" else st.floats(low, high, width=dtype.itemsize * 8)
        value = data.draw(hnp.arrays(dtype, shape, elements=elements))
        space = Box(low, high, shape, dtype)
        space.set_value(value.tolist())
        assert equal(space.value, value)


class TestConstraint:
    def test_every_sample_and_every_value_satisfies_it(self):
        space = Discrete(10, constrain_fn=is_even, seed=0)
        assert {space.sample() for _ in range(60)} == {0, 2, 4, 6, 8}
        assert 4 in space
        assert 3 not in space
        with pytest.raises(ContractError, match=r"3.*constrain_fn"):
            space.set_value(3)

    def test_sees_the_whole_array_in_the_dtype_of_the_space(self):
        seen = []
        space = MultiDiscrete([3, 3], constrain_fn=lambda v: seen.append(v) or v[0] < v[1], seed=0)
        assert [0, 2] in space
        assert [2, 0] not in space
        space.sample()
        assert all(isinstance(v, np.ndarray) and v.shape == (2,) for v in seen)

    def test_that_nothing_satisfies_exhausts_the_tries_and_keeps_the_value(self):
        calls = []
        space = Discrete(3, init_value=1)
        space.constrain_fn = calls.append
        with pytest.raises(RuntimeError, match="7 draws"):
            space.sample(max_tries=7)
        assert len(calls) == 7
        assert space.value == 1

    def test_slow_sampling_warns_once(self, caplog):
        space = Discrete(3, constrain_fn=lambda v: False)
        with pytest.raises(SamplingError):
            space.sample(max_tries=5, warn_after_s=0)
        assert len(caplog.records) == 1
        caplog.clear()
        with pytest.raises(SamplingError):
            space.sample(max_tries=5, warn_after_s=None)
        assert not caplog.records

    def test_check_logs_a_value_that_has_become_illegal(self, caplog):
        limit = Discrete(10, init_value=9)
        space = Discrete(10, init_value=5, constrain_fn=lambda v: v < limit.value)
        assert space.check()
        limit.set_value(3)
        assert not space.check()
        assert "rejected" in caplog.text

    def test_may_read_a_space_that_is_built_later(self):
        class Env:
            def __init__(self):
                position = Box(0, 9, init_value=5, constrain_fn=self.is_free)
                self.variation_space = Dict({"radius": Box(0, 9, init_value=2), "position": position})

            def is_free(self, position):
                return position[0] > self.variation_space["radius"].value[0]

        env = Env()
        assert env.variation_space.check()
        assert env.variation_space.init_value["position"] == 5
        env.variation_space.set_value({"radius": 7})
        assert env.variation_space.violations() == ["position"]

    def test_is_tested_at_closed_box_bounds(self):
        space = Box(np.array([-1.0, 5.0]), np.array([-1.0, 6.0]), dtype=np.float64, seed=0)
        drawn = np.array([space.sample() for _ in range(50)])
        assert (drawn[:, 0] == -1).all()
        assert drawn[:, 1].min() >= 5
        assert drawn[:, 1].max() <= 6


class TestRGBBox:
    def test_is_uint8_from_0_to_255(self):
        space = RGBBox((2, 3), init_value=0, seed=0)
        assert (space.dtype, space.shape) == (np.uint8, (2, 3))
        drawn = np.array([space.sample() for _ in range(2000)])
        assert (drawn.min(), drawn.max()) == (0, 255)

    @pytest.mark.parametrize("fixed", [{"low": 0}, {"high": 255}, {"dtype": np.float32}])
    def test_fixes_bounds_and_dtype(self, fixed):
        with pytest.raises(TypeError, match="RGBBox"):
            RGBBox((3,), **fixed)
        with pytest.raises(TypeError, match="RGBBox"):
            RGBBox((3,), 0)

    def test_needs_a_colour_axis(self):
        with pytest.raises(ContractError, match="axis of size 3"):
            RGBBox((4, 4))
