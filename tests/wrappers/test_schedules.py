"""Schedules follow their formulas, stay in range, and are plain values."""

import itertools
import math
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stable_worldmodel import wrapper, wrappers
from stable_worldmodel.errors import ContractError
from stable_worldmodel.wrappers.schedules import Constant, Cosine, Exponential, Linear, Sinusoidal

EXAMPLES = [Constant(0.3), Linear(0, 1, 10), Cosine(1, 0, 10), Exponential(1, 0.2, 5), Sinusoidal(0, 1, 8, 0.25)]
numbers = st.floats(-1e6, 1e6)
lengths = st.floats(1e-3, 1e6)
progress = st.floats(0, 1e7)


@pytest.mark.parametrize(
    ("schedule", "values"),
    [
        (Constant(0.3), {0: 0.3, 5: 0.3, 1e9: 0.3}),
        (Linear(2, 4, 10), {0: 2, 2.5: 2.5, 5: 3, 10: 4, 11: 4, 1e9: 4}),
        (Linear(4, 2, 10), {0: 4, 5: 3, 20: 2}),
        (Cosine(2, 4, 10), {0: 2, 2.5: 3 - math.sqrt(0.5), 5: 3, 10: 4, 1e9: 4}),
        (Exponential(3, 1, 4), {0: 3, 4: 1 + 2 / math.e, 8: 1 + 2 / math.e**2, 1e9: 1}),
        (Sinusoidal(1, 3, 8), {0: 1, 2: 2, 4: 3, 6: 2, 8: 1, 804: 3}),
        (Sinusoidal(1, 3, 8, 0.5), {0: 3, 4: 1}),
    ],
)
def test_values_are_those_of_the_formula(schedule, values):
    for x, value in values.items():
        assert schedule(x) == pytest.approx(value, abs=1e-9)


@given(numbers, numbers, lengths, progress)
def test_values_stay_between_the_ends_to_the_last_bit(a, b, length, x):
    low, high = min(a, b), max(a, b)
    slack = 4 * np.spacing(max(abs(a), abs(b)))
    for kind in (Linear, Cosine, Exponential, Sinusoidal):
        assert low - slack <= kind(a, b, length)(x) <= high + slack


@given(lengths, progress)
def test_a_share_stays_a_share(length, x):
    for kind in (Linear, Cosine, Exponential, Sinusoidal):
        for ends in ((0, 1), (1, 0), (1, 1)):
            assert 0 <= kind(*ends, length)(x) <= 1


@given(lengths, st.lists(progress, min_size=2, max_size=10))
def test_ramps_never_turn_back(length, xs):
    for kind in (Linear, Cosine, Exponential):
        values = [kind(0, 1, length)(x) for x in sorted(xs)]
        assert all(a <= b + 1e-12 for a, b in itertools.pairwise(values))


@pytest.mark.parametrize("schedule", EXAMPLES, ids=lambda s: type(s).__name__)
def test_schedules_are_frozen_values(schedule):
    assert pickle.loads(pickle.dumps(schedule)) == schedule
    assert eval(repr(schedule)) == schedule
    with pytest.raises(AttributeError):
        schedule.value = 1


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: Constant(math.nan), "value"),
        (lambda: Constant("much"), "value"),
        (lambda: Constant(True), "value"),
        (lambda: Linear(0, math.inf, 5), "end"),
        (lambda: Linear(0, 1, 0), "duration"),
        (lambda: Cosine(0, 1, -3), "duration"),
        (lambda: Exponential(0, 1, 0), "time_constant"),
        (lambda: Sinusoidal(0, 1, 0), "period"),
        (lambda: Sinusoidal(0, 1, 5, None), "phase"),
    ],
)
def test_bad_arguments_are_refused_by_name(make, name):
    with pytest.raises(ContractError, match=name):
        make()


def test_lower_case_names_are_the_same_schedules():
    for kind in (Constant, Linear, Cosine, Exponential, Sinusoidal):
        assert getattr(wrappers, kind.__name__.lower()) is kind


def test_the_other_module_name_has_the_same_classes():
    assert set(wrapper.__all__) == set(wrappers.__all__)
    assert all(getattr(wrapper, name) is getattr(wrappers, name) for name in wrappers.__all__)
