"""What an evaluation returns: a dictionary of numbers that knows its interval and can be saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from stable_worldmodel.utils.files import write_json
from stable_worldmodel.utils.provenance import provenance
from stable_worldmodel.utils.statistics import wilson_interval


class Results(dict):
    """A plain dict with the result keys of `World.evaluate`, plus what it takes to cite them.

    Keys: `success_rate` (percent), `episode_successes` bool (episodes,), `seeds` int64 (episodes,), -1 where unseeded,
    `episode_count`, `episode_lengths` int64, `episode_returns` float64, and one array per entry of `eval_keys`.

    Attributes:
        protocol: the arguments that define the evaluation (env, episodes, seed, policy, ...), JSON-able.
    """

    def __init__(self, values: dict[str, Any], protocol: dict[str, Any]):
        super().__init__(values)
        self.protocol = protocol

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Wilson interval of the success rate, in percent."""
        low, high = wilson_interval(int(np.sum(self["episode_successes"])), self["episode_count"], confidence)
        return 100 * low, 100 * high

    def to_json(self) -> dict[str, Any]:
        """Numbers, interval, protocol and provenance as JSON-able values."""
        numbers = {key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in self.items()}
        return {**numbers, "interval_95": list(self.interval()), "protocol": self.protocol, **provenance()}

    def save(self, path: str | Path) -> Path:
        """Write `to_json()` to `path`; the file is complete or not there."""
        return write_json(path, self.to_json())

    def __str__(self) -> str:
        low, high = self.interval()
        wins = int(np.sum(self["episode_successes"]))
        return f"success {self['success_rate']:.1f} % [{low:.1f}, {high:.1f}] ({wins}/{self['episode_count']} episodes)"
