"""Two evaluations on the same episodes: what differs, how much, and whether it could be chance."""

from __future__ import annotations

import reprlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from stable_worldmodel.errors import ContractError
from stable_worldmodel.utils.statistics import Estimate, bootstrap_mean, mcnemar_test, paired_difference_interval
from stable_worldmodel.world.results import Results, plain

# Entries of the protocol that say which episodes were run. The number of envs and the size of images do not.
_SAME = ("options", "dataset", "episodes_idx", "start_steps", "goal_offset", "eval_budget", "callables")
_ONLY_DRAWN = frozenset({"render_mode"})


@dataclass(frozen=True)
class PairedComparison:
    """Success of `a` minus success of `b` over n episodes that both ran.

    Attributes:
        both, only_a, only_b, neither: episodes by who succeeded.
        success_rate_a, success_rate_b: percent.
        difference, low, high: a - b in percentage points, with Tango's score interval for paired proportions.
        p_value: McNemar's exact test, two-sided.
        returns: mean of the per-episode differences of returns a - b, with its bootstrap interval; None without
            returns.
        confidence: of both intervals.
    """

    n: int
    both: int
    only_a: int
    only_b: int
    neither: int
    success_rate_a: float
    success_rate_b: float
    difference: float
    low: float
    high: float
    p_value: float
    returns: Estimate | None
    confidence: float = 0.95

    def to_json(self) -> dict[str, Any]:
        """All fields as values that strict JSON can hold."""
        return plain(asdict(self))

    def __str__(self) -> str:
        lines = [
            f"success {self.success_rate_a:.1f} % against {self.success_rate_b:.1f} % on the same {self.n} episodes "
            f"(both {self.both}, only a {self.only_a}, only b {self.only_b}, neither {self.neither})",
            f"difference {self.difference:+.1f} points [{self.low:+.1f}, {self.high:+.1f}] "
            f"at {100 * self.confidence:g} %, McNemar exact p = {self.p_value:.3g}",
        ]
        if self.returns is not None:
            lines.append(f"difference of returns {self.returns}")
        return "\n".join(lines)


def compare(a: Results, b: Results, confidence: float = 0.95) -> PairedComparison:
    """Compare two evaluations episode by episode; positive numbers are in favour of `a`.

    Raises ContractError, naming what differs, unless both are about the same episodes: the same env, options and
    seeds and, with a dataset, the same starts, goals and budget. Without a dataset every episode must be seeded.
    """
    differences = list(_differences(a, b))
    if differences:
        raise ContractError(
            f"the results are not about the same episodes: {'; '.join(differences)}; "
            "evaluate both policies with the same arguments"
        )
    won_a, won_b = np.asarray(a["episode_successes"], bool), np.asarray(b["episode_successes"], bool)
    n = len(won_a)
    only_a, only_b = int((won_a & ~won_b).sum()), int((won_b & ~won_a).sum())
    low, high = paired_difference_interval(only_a, only_b, n, confidence)
    returns = None
    if "episode_returns" in a and "episode_returns" in b:
        with np.errstate(invalid="ignore"):  # infinite returns on both sides
            returns = bootstrap_mean(a["episode_returns"] - b["episode_returns"], confidence)
    return PairedComparison(
        n=n,
        both=int((won_a & won_b).sum()),
        only_a=only_a,
        only_b=only_b,
        neither=int((~won_a & ~won_b).sum()),
        success_rate_a=100.0 * float(won_a.mean()),
        success_rate_b=100.0 * float(won_b.mean()),
        difference=100.0 * (only_a - only_b) / n,
        low=100.0 * low,
        high=100.0 * high,
        p_value=mcnemar_test(only_a, only_b),
        returns=returns,
        confidence=confidence,
    )


def _differences(a: Results, b: Results) -> Iterator[str]:
    """What keeps two results from being paired, in words."""
    ours, theirs = _episode_protocol(a), _episode_protocol(b)
    for key in {**ours, **theirs}:
        if ours.get(key) != theirs.get(key):
            yield _describe(key, ours.get(key), theirs.get(key))
    sources = [set(str(results.protocol["success"]).split(", ")) for results in (a, b) if "success" in results.protocol]
    if len(sources) == 2 and not sources[0] & sources[1]:
        yield _describe("the source of success", a.protocol["success"], b.protocol["success"])
    seeds_a, seeds_b = _seeds(a), _seeds(b)
    if seeds_a != seeds_b:
        yield _describe("seeds", seeds_a, seeds_b)
    elif len(a["episode_successes"]) != len(b["episode_successes"]):
        yield _describe("episode_count", len(a["episode_successes"]), len(b["episode_successes"]))
    elif ours["dataset"] is None and (seeds_a is None or min(seeds_a) < 0):
        # A dataset says where an episode starts and ends; otherwise only its seed does.
        yield "their episodes are unseeded, so no two runs share them; call evaluate(seed=...)"


def _episode_protocol(results: Results) -> dict[str, Any]:
    """The entries of the protocol that decide which episodes are run; None where one is not given."""
    protocol = plain(results.protocol)
    entries = {key: protocol.get(key) for key in _SAME}
    env = protocol.get("env")
    if not isinstance(env, Mapping):
        return {"env": env, **entries}
    arguments = {key: value for key, value in (env.get("arguments") or {}).items() if key not in _ONLY_DRAWN}
    wrappers = env.get("wrappers") or {}
    around = {f"{key}_wrappers": wrappers.get(key) for key in ("pre", "extra")}
    return {"env": env.get("id"), **{f"env {key}": value for key, value in arguments.items()}, **around, **entries}


def _seeds(results: Results) -> list[int] | None:
    """Seeds per episode; None if no episode has one."""
    seeds = results.get("seeds")
    if seeds is None or np.all(np.asarray(seeds) < 0):
        return None
    return np.asarray(seeds).tolist()


def _describe(name: str, a: Any, b: Any) -> str:
    if isinstance(a, list) and isinstance(b, list):
        if len(a) != len(b):
            return f"{name} has {len(a)} entries in a and {len(b)} in b"
        item = next(i for i, (x, y) in enumerate(zip(a, b, strict=True)) if x != y)
        return f"{name} differs first at episode {item} ({a[item]} in a, {b[item]} in b)"
    return f"{name} is {reprlib.repr(a)} in a and {reprlib.repr(b)} in b"
