"""What an evaluation returns: a dictionary of numbers that knows its intervals and can be saved and compared."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stable_worldmodel.errors import ContractError, NotFoundError
from stable_worldmodel.utils.files import write_atomically
from stable_worldmodel.utils.provenance import provenance
from stable_worldmodel.utils.statistics import Estimate, bootstrap_mean, wilson_interval

if TYPE_CHECKING:
    from stable_worldmodel.world.comparison import PairedComparison

FORMAT = "stable_worldmodel.results"
FORMAT_VERSION = 1
# Result keys that are not a quantity with a mean of its own.
_NOT_METRICS = frozenset({"success_rate", "episode_successes", "seeds", "episode_count", "plan_seconds"})
_SECTIONS = ("format", "format_version", "summary", "protocol", "arrays", "values")
_STRIP_LIMIT = 500  # episodes drawn in a notebook


class Results(dict):
    """A plain dict with the result keys of `World.evaluate`, plus what it takes to cite them.

    Keys: `success_rate` (percent), `episode_successes` bool (episodes,), `seeds` int64 (episodes,), -1 where unseeded
    (or None), `episode_count`, `episode_lengths` int64, `episode_returns` float64, and one array per entry of
    `eval_keys`.

    Attributes:
        protocol: the arguments that define the evaluation (env, episodes, seed, policy, ...), JSON-able.
        provenance: versions, git revision, platform and command line of the run; None until it is saved.
    """

    def __init__(
        self, values: Mapping[str, Any], protocol: Mapping[str, Any], provenance: dict[str, Any] | None = None
    ):
        super().__init__(values)
        self.protocol = dict(protocol)
        self.provenance = provenance

    # ------------------------------------------------------------------ numbers
    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Wilson interval of the success rate, in percent."""
        estimate = _percentage(self["episode_successes"], confidence)
        return estimate.low, estimate.high

    def summary(self, confidence: float = 0.95) -> dict[str, Estimate]:
        """Mean, interval and number of episodes of every quantity with one value per episode.

        `success_rate` and boolean keys are percentages with Wilson's interval, numbers are means with a bootstrap
        interval (see `utils.statistics.bootstrap_mean`).
        """
        successes = self["episode_successes"]
        estimates = {"success_rate": _percentage(successes, confidence)}
        for key, value in self.items():
            if key in _NOT_METRICS or not isinstance(value, np.ndarray) or value.shape != (len(successes),):
                continue
            if value.dtype.kind == "b":
                estimates[key] = _percentage(value, confidence)
            elif value.dtype.kind in "iuf":
                estimates[key] = bootstrap_mean(value, confidence)
        return estimates

    def compare(self, other: Results, confidence: float = 0.95) -> PairedComparison:
        """This minus `other`, paired episode by episode; see `world.comparison.compare`."""
        from stable_worldmodel.world.comparison import compare

        return compare(self, other, confidence)

    # ------------------------------------------------------------------ files
    def to_json(self) -> dict[str, Any]:
        """Everything needed to repeat and reuse the run, in values that strict JSON can hold.

        `values` has the result keys with arrays as lists, `arrays` their dtypes and shapes, `summary` the intervals at
        95 %, then `protocol` and the provenance. NaN is null, infinities are the texts "inf" and "-inf".
        """
        if self.provenance is None:
            self.provenance = provenance()
        values = {key: _storable(value) for key, value in self.items()}
        arrays = {key: value for key, value in values.items() if isinstance(value, np.ndarray)}
        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "summary": {key: plain(vars(estimate)) for key, estimate in self.summary().items()},
            "protocol": plain(self.protocol),
            **plain(self.provenance),
            "arrays": {key: {"dtype": a.dtype.str, "shape": list(a.shape)} for key, a in arrays.items()},
            "values": {key: _flat(value) if key in arrays else plain(value) for key, value in values.items()},
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Results:
        """The results that `to_json` described; ContractError for anything else.

        Arrays come back with their dtypes. What an array of objects held comes back as plain JSON values.
        """
        if not isinstance(document, Mapping) or document.get("format") != FORMAT:
            raise ContractError(f"no results of this library: expected an object with format {FORMAT!r}")
        if document.get("format_version") != FORMAT_VERSION:
            raise ContractError(
                f"results have format version {document.get('format_version')!r}: expected {FORMAT_VERSION}; "
                "read them with the release of the library that wrote them"
            )
        missing = [section for section in _SECTIONS if section not in document]
        if missing:
            raise ContractError(f"results lack {missing}: expected the sections {list(_SECTIONS)}")
        values = dict(document["values"])
        for key, spec in document["arrays"].items():
            values[key] = _array(values[key], np.dtype(spec["dtype"]), spec["shape"])
        origin = {key: value for key, value in document.items() if key not in _SECTIONS}
        return cls(values, document["protocol"], origin)

    def save(self, path: str | Path) -> Path:
        """Write `to_json()` to `path`, each array on a line of its own; the file is complete or not there."""
        return write_atomically(path, _document_text(self.to_json()).encode())

    @classmethod
    def load(cls, path: str | Path) -> Results:
        """The results saved in `path`. NotFoundError if it is missing, ContractError if it holds something else."""
        path = Path(path)
        if not path.is_file():
            raise NotFoundError(f"no results file {path}")
        try:
            return cls.from_json(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, KeyError, TypeError, AttributeError) as error:  # sections of other types
            raise ContractError(f"{path} cannot be read as results: {error}") from error

    # ------------------------------------------------------------------ display
    def __str__(self) -> str:
        low, high = self.interval()
        wins, total = int(np.sum(self["episode_successes"])), len(self["episode_successes"])
        rule = f", {_success_rule(self)}" if _success_rule(self) else ""
        lines = [f"success {100 * wins / total:.1f} % [{low:.1f}, {high:.1f}] ({wins}/{total} episodes{rule})"]
        for key, label, unit in (("episode_returns", "return", ""), ("episode_lengths", "length", " steps")):
            if key in self:
                lines.append(f"{label:7} {bootstrap_mean(self[key])}{unit}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """A table and a strip of episodes for notebooks; colours are those of the page, so both themes work."""
        left = 'style="text-align:left"'
        rows = "".join(
            f'<tr><th scope="row" {left}>{escape(key)}{_unit(self, key)}</th><td>{estimate.mean:.4g}</td>'
            f"<td>{_bounds_text(estimate)}</td><td>{estimate.n}</td></tr>"
            for key, estimate in self.summary().items()
        )
        titles = ("metric", "mean", "95 % interval", "episodes")
        head = "".join(f'<th scope="col" {left}>{title}</th>' for title in titles)
        return (
            f'<div style="max-width:34rem"><table style="color:inherit;margin-bottom:.5em">'
            f"<caption {left}>{escape(_caption(self))}</caption>"
            f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>{_strip(self)}</div>"
        )


def plain(value: Any) -> Any:
    """`value` as what strict JSON can hold: NaN as None, infinities as texts, arrays as lists, the rest as its text."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value if isinstance(value, bool | int | float | str | None) else str(value)


def _storable(value: Any) -> Any:
    """Arrays of numbers and texts as they are, other arrays as objects; anything but an array as it is."""
    if not isinstance(value, np.ndarray) or value.dtype.kind in "biufU":
        return value
    return value.astype(object)


def _flat(array: np.ndarray) -> list:
    """Nested lists of an array; objects, which may be lists themselves, in one list."""
    return plain(array.ravel().tolist() if array.dtype.hasobject else array)


def _array(values: list, dtype: np.dtype, shape: list[int]) -> np.ndarray:
    if not dtype.hasobject:
        # NumPy reads null as NaN and the texts of infinities as numbers.
        return np.array(values, dtype).reshape(shape)
    array = np.empty(len(values), object)
    for i, value in enumerate(values):
        array[i] = value
    return array.reshape(shape)


def _document_text(document: Mapping[str, Any]) -> str:
    """JSON with one line per entry of each section, so that people can read it and versions can be compared."""

    def block(value: Any) -> str:
        if not isinstance(value, Mapping) or not value:
            return json.dumps(value, allow_nan=False)
        lines = (f"    {json.dumps(key)}: {json.dumps(entry, allow_nan=False)}" for key, entry in value.items())
        return "{\n" + ",\n".join(lines) + "\n  }"

    return "{\n" + ",\n".join(f"  {json.dumps(key)}: {block(value)}" for key, value in document.items()) + "\n}\n"


def _percentage(flags: np.ndarray, confidence: float) -> Estimate:
    wins, total = int(np.sum(flags)), len(flags)
    low, high = wilson_interval(wins, total, confidence)
    return Estimate(100 * wins / total, 100 * low, 100 * high, total)


def _success_rule(results: Results) -> str:
    """A reminder that the env reports no success of its own, only that the episode is over."""
    source = str(results.protocol.get("success") or "")
    return f"success = {source}" if "terminated" in source else ""


def _caption(results: Results) -> str:
    env, policy = results.protocol.get("env"), results.protocol.get("policy")
    parts = [
        env.get("id") if isinstance(env, Mapping) else env,
        policy.get("class") if isinstance(policy, Mapping) else policy,
        f"{len(results['episode_successes'])} episodes",
        _success_rule(results),
    ]
    return " · ".join(str(part) for part in parts if part)


def _unit(results: Results, key: str) -> str:
    return " (%)" if key == "success_rate" or results[key].dtype.kind == "b" else ""


def _bounds_text(estimate: Estimate) -> str:
    return "-" if math.isnan(estimate.low) else f"{estimate.low:.4g} to {estimate.high:.4g}"


def _strip(results: Results, columns: int = 50) -> str:
    """One square per episode: filled if it succeeded, an outline if not, its number and seed on hover."""
    successes, seeds = results["episode_successes"], results.get("seeds")
    shown = min(len(successes), _STRIP_LIMIT)
    squares = []
    for episode, success in enumerate(successes[:shown].tolist()):
        row, column = divmod(episode, columns)
        seed = "" if seeds is None or seeds[episode] < 0 else f", seed {seeds[episode]}"
        paint = 'fill="currentColor"' if success else 'fill="none" stroke="currentColor" opacity="0.6"'
        squares.append(
            f'<rect x="{10 * column + 1}" y="{10 * row + 1}" width="8" height="8" {paint}>'
            f"<title>episode {episode}{seed}: {'success' if success else 'failure'}</title></rect>"
        )
    width, height = 10 * min(shown, columns), 10 * -(-shown // columns)
    label = f"{int(np.sum(successes))} of {len(successes)} episodes succeeded"
    more = "" if shown == len(successes) else f"<p>first {shown} of {len(successes)} episodes</p>"
    return (
        f'<svg role="img" aria-label="{label}" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'style="max-width:100%;height:auto">{"".join(squares)}</svg>{more}'
    )
