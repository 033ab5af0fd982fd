"""The contract of envs whose observation is a mapping: its entries count like entries of info, as World lifts them."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np


class LiftedObservations:
    """Put it before EnvContract in the bases of a test class."""

    def record(self, *args: Any, **kwargs: Any) -> list[dict]:
        rows = super().record(*args, **kwargs)  # type: ignore[misc]
        for row in rows:
            observation = row.pop("observation")
            assert not observation.keys() & row.keys()
            row.update(observation)
        return rows

    def test_observations_are_numpy_arrays_of_the_declared_space(self) -> None:
        env = self.make()  # type: ignore[attr-defined]
        for row in self.record(env, options={"variation": ["all"]}):
            assert env.observation_space.contains({key: row[key] for key in env.observation_space})

    def test_seeds_differ(self) -> None:
        env = self.make()  # type: ignore[attr-defined]
        first = [gym.spaces.flatten(env.observation_space, env.reset(seed=seed)[0]) for seed in range(4)]
        assert len({np.asarray(value).tobytes() for value in first}) == len(first)
