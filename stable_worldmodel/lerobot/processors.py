"""LeRobot's processor pipelines, read from their JSON files: rename, add a batch axis, move, normalise."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stable_worldmodel.errors import ContractError, MissingKeyError, NotFoundError, require
from stable_worldmodel.lerobot.constants import ACTION, OBS_PREFIX, POLICY_POSTPROCESSOR, POLICY_PREPROCESSOR
from stable_worldmodel.lerobot.features import NormalizationMode, PolicyFeature, features_from_dict

EPS = 1e-8
# The two statistics a mode scales by.
_STATS = {
    NormalizationMode.MEAN_STD: ("mean", "std"),
    NormalizationMode.MIN_MAX: ("min", "max"),
    NormalizationMode.QUANTILES: ("q01", "q99"),
    NormalizationMode.QUANTILE10: ("q10", "q90"),
}

Step = Callable[[dict[str, Any]], dict[str, Any]]


def normalize(
    x: Any, stats: Mapping[str, Any], mode: NormalizationMode, *, inverse: bool = False, eps: float = EPS
) -> Any:
    """Scale `x` by the statistics of its feature, or with `inverse` bring it back; nothing is clipped.

    MEAN_STD: (x - mean) / (std + eps), back x std + mean. The others map a range [low, high] to [-1, 1]: MIN_MAX from
    minimum to maximum, QUANTILES from q01 to q99, QUANTILE10 from q10 to q90; a range of zero counts as `eps`. Without
    any statistics, and for IDENTITY, `x` is returned. ContractError if the mode needs others than there are.
    """
    mode = NormalizationMode(mode)
    if mode is NormalizationMode.IDENTITY or not stats:
        return x
    names = _STATS[mode]
    missing = [name for name in names if name not in stats]
    if missing:
        raise ContractError(f"{mode.value} needs the statistics {list(names)}: found {sorted(stats)}")
    low, high = (_like(stats[name], x) for name in names)
    if mode is NormalizationMode.MEAN_STD:
        return x * high + low if inverse else (x - low) / (high + eps)
    extent = high - low
    # In place of zeros and in their own dtype: a product with a boolean tensor would round `eps` to float32.
    extent = extent + (extent == 0) * (extent * 0 + eps)
    return (x + 1) / 2 * extent + low if inverse else 2 * (x - low) / extent - 1


def _like(value: Any, x: Any) -> Any:
    """A statistic as what `x` is: an array, or a tensor on its device."""
    torch = require("torch")
    if not torch.is_tensor(x):
        return value.numpy() if torch.is_tensor(value) else value
    return torch.as_tensor(value).to(x.device, x.dtype if x.is_floating_point() else torch.float32)


@dataclass
class Rename:
    """Renames keys; others stay."""

    rename_map: dict[str, str] = field(default_factory=dict)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        return {self.rename_map.get(key, key): value for key, value in batch.items()}


@dataclass
class ToBatch:
    """Adds the batch axis to states and actions with one axis, images with three, and a single task."""

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        return {key: self._batched(key, value) for key, value in batch.items()}

    @staticmethod
    def _batched(key: str, value: Any) -> Any:
        if key == "task" and isinstance(value, str):
            return [value]
        axes = 3 if key.startswith(f"{OBS_PREFIX}image") else 1
        known = key.startswith(OBS_PREFIX) or key == ACTION
        return value[None] if known and getattr(value, "ndim", None) == axes else value


@dataclass
class ToDevice:
    """Moves tensors; floats also to `float_dtype`, if it is given."""

    device: str = "cpu"
    float_dtype: str | None = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        torch = require("torch")
        dtype = None if self.float_dtype is None else getattr(torch, self.float_dtype)
        return {key: self._moved(torch, value, dtype) for key, value in batch.items()}

    def _moved(self, torch: Any, value: Any, dtype: Any) -> Any:
        if not torch.is_tensor(value):
            return value
        return value.to(self.device, dtype if value.is_floating_point() else None)


@dataclass
class Normalize:
    """Scales every feature by the mode of its kind; `inverse` brings back."""

    features: dict[str, PolicyFeature]
    norm_map: dict[str, NormalizationMode]
    stats: dict[str, dict[str, Any]] = field(default_factory=dict)
    eps: float = EPS
    inverse: bool = False

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        return {key: self._scaled(key, value) for key, value in batch.items()}

    def _scaled(self, key: str, value: Any) -> Any:
        if key not in self.features or not hasattr(value, "ndim"):
            return value
        mode = self.norm_map.get(self.features[key].type.value, NormalizationMode.IDENTITY)
        return normalize(value, self.stats.get(key, {}), mode, inverse=self.inverse, eps=self.eps)


@dataclass
class Pipeline:
    """Steps one after the other. A bare tensor is taken for an action, and one is returned."""

    steps: Sequence[Step] = ()
    name: str = ""

    def __call__(self, batch: Any) -> Any:
        is_action = not isinstance(batch, Mapping)
        values = {ACTION: batch} if is_action else dict(batch)
        for step in self.steps:
            values = step(values)
        return values[ACTION] if is_action else values


def load_pipeline(file: str | Path, overrides: Mapping[str, Mapping[str, Any]] | None = None) -> Pipeline:
    """The pipeline of a JSON file, with the tensors beside it.

    Args:
        overrides: registry name -> values that replace those of its config; `stats` of a normaliser replace its file's.

    Raises:
        NotFoundError: the file, or one it names, does not exist.
        ContractError: it is not a pipeline, or has a step that only the package lerobot knows.
        MissingKeyError: an override names a step that is not there.
    """
    file = Path(file)
    if not file.is_file():
        raise NotFoundError(f"{file} does not exist: expected a processor pipeline in JSON")
    try:
        document = json.loads(file.read_text())
        entries = list(document["steps"])
    except (ValueError, KeyError, TypeError) as error:
        raise ContractError(f"{file} is no processor pipeline: {error}") from error
    given = {name: dict(values) for name, values in (overrides or {}).items()}
    known = {entry.get("registry_name") for entry in entries}
    unknown = sorted(given.keys() - known)
    if unknown:
        raise MissingKeyError(f"overrides {unknown}: {file.name} has the steps {sorted(map(str, known))}")
    steps = [_build_step(entry, given.get(str(entry.get("registry_name")), {}), file) for entry in entries]
    return Pipeline(steps, str(document.get("name", file.stem)))


def load_processors(folder: str | Path, **overrides: Mapping[str, Any]) -> tuple[Pipeline, Pipeline]:
    """Pre- and postprocessor of a policy folder. Overrides go to whichever of the two has the step."""
    pipelines = []
    for stem in (POLICY_PREPROCESSOR, POLICY_POSTPROCESSOR):
        file = Path(folder) / f"{stem}.json"
        if not file.is_file():
            raise NotFoundError(
                f"{folder} has no {file.name}: checkpoints older than processor pipelines keep statistics in their "
                "weights; convert them with LeRobot's migration script"
            )
        names = {entry.get("registry_name") for entry in json.loads(file.read_text()).get("steps", [])}
        pipelines.append(load_pipeline(file, {name: value for name, value in overrides.items() if name in names}))
    return pipelines[0], pipelines[1]


def _build_step(entry: Mapping[str, Any], override: dict[str, Any], file: Path) -> Step:
    name = entry.get("registry_name")
    if name not in STEPS:
        found = f"code, {entry['class']!r}" if "class" in entry else repr(name)
        raise ContractError(
            f"{file.name} has the step {found}: known are {sorted(STEPS)}; run it with the package lerobot"
        )
    values = {**(entry.get("config") or {}), **override}
    if "stats" not in override and entry.get("state_file"):
        state_file = str(entry["state_file"])
        if Path(state_file).name != state_file:
            raise ContractError(f"{file.name} names the state file {state_file!r}: expected a file beside it")
        values["stats"] = _read_stats(file.parent / state_file)
    return STEPS[str(name)](values)


def _read_stats(file: Path) -> dict[str, dict[str, Any]]:
    """Tensors `<feature>.<statistic>` as {feature: {statistic: tensor}}."""
    if not file.is_file():
        raise NotFoundError(f"{file} does not exist: it should hold the statistics of a normaliser")
    stats: dict[str, dict[str, Any]] = {}
    for name, tensor in require("safetensors.torch").load_file(str(file)).items():
        feature, _, statistic = name.rpartition(".")
        stats.setdefault(feature, {})[statistic] = tensor
    return stats


def _normalizer(values: Mapping[str, Any], inverse: bool) -> Normalize:
    modes = {kind: NormalizationMode(mode) for kind, mode in (values.get("norm_map") or {}).items()}
    features = features_from_dict(values.get("features") or {})
    return Normalize(features, modes, dict(values.get("stats") or {}), float(values.get("eps", EPS)), inverse)


# Registry name -> step of a config.
STEPS: dict[str, Callable[[Mapping[str, Any]], Step]] = {
    "rename_observations_processor": lambda values: Rename(dict(values.get("rename_map") or {})),
    "to_batch_processor": lambda values: ToBatch(),
    "device_processor": lambda values: ToDevice(values.get("device", "cpu"), values.get("float_dtype")),
    "normalizer_processor": lambda values: _normalizer(values, inverse=False),
    "unnormalizer_processor": lambda values: _normalizer(values, inverse=True),
}
