"""Splitting by episode."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stable_worldmodel.data import split_episodes
from stable_worldmodel.errors import ContractError


@settings(deadline=None)
@given(st.integers(3, 200), st.integers(0, 5), st.floats(0.05, 0.6), st.floats(0.05, 0.3))
def test_parts_are_disjoint_sorted_sized_and_never_empty(num_episodes, seed, train, test):
    fractions = {"train": train, "val": 0.1, "test": test}
    parts = split_episodes(num_episodes, fractions, seed)
    together = np.concatenate([*parts.values()])
    assert list(parts) == list(fractions)
    assert len(np.unique(together)) == len(together) <= num_episodes
    assert 0 <= together.min() <= together.max() < num_episodes
    for name, part in parts.items():
        assert len(part) >= 1
        assert abs(len(part) - fractions[name] * num_episodes) <= 2
        assert np.all(np.diff(part) > 0)


def test_whole_fractions_use_every_episode():
    parts = split_episodes(10, {"train": 0.8, "val": 0.1, "test": 0.1}, seed=0)
    assert [len(part) for part in parts.values()] == [8, 1, 1]
    assert sorted(np.concatenate([*parts.values()])) == list(range(10))


def test_split_depends_on_the_seed_only():
    fractions = {"train": 0.5, "val": 0.5}
    first, again, other = (split_episodes(50, fractions, seed)["train"].tolist() for seed in (1, 1, 2))
    assert first == again != other


@pytest.mark.parametrize("fractions", [{}, {"a": 0.0}, {"a": 0.8, "b": 0.3}])
def test_wrong_fractions_are_refused(fractions):
    with pytest.raises(ContractError, match="positive numbers that sum to at most 1"):
        split_episodes(10, fractions, seed=0)


def test_more_parts_than_episodes_are_refused():
    with pytest.raises(ContractError, match="cannot be split into 2 parts"):
        split_episodes(1, {"a": 0.5, "b": 0.5}, seed=0)
