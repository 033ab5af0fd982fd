"""Training runs from `key=value` words: Hydra's compose over typed configs that hold a preset's values.

    model=lewm preset=small data=two_room.h5 learning_rate=3e-4 model.latent_dim=32

`model` and `preset` are groups, which decide what all other values begin with; `data` is a path or the name of a
dataset. What a config says is data: nothing named in it is ever imported or called.
"""

from __future__ import annotations

import copy
import dataclasses
import difflib
import hashlib
import re
import typing
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from stable_worldmodel.data.cache import CHECKPOINTS, get_cache_dir
from stable_worldmodel.errors import ContractError, require
from stable_worldmodel.train.config import TrainConfig
from stable_worldmodel.train.presets import PRESETS, preset_values
from stable_worldmodel.utils.mappings import flatten_dict
from stable_worldmodel.wm.registry import ALIASES, config_from_dict

CONFIG = "train"  # name of the primary config
_GROUPS = ("model", "preset")
_SHORT = {"lr": "learning_rate"}
_RUN_KEYS = ("data", "out", "name")
# Values that are no part of a run's name.
_UNNAMED = ("loggers", "save_every", "device", "log_every")
_LONGEST_NAME = 120


@dataclass(frozen=True)
class Run:
    """A training run as it was asked for."""

    data: str  # path or name of the dataset
    out: Path  # folder of the run
    config: TrainConfig


def compose_run(overrides: Sequence[str]) -> Run:
    """The run that `key=value` words describe.

    Raises ContractError for words that are no overrides, unknown keys (naming the nearest), values of another type,
    several values for one key, and `_target_`.
    """
    hydra: Any = require("hydra", "train")
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    register()
    words = checked([_quoted(word) for word in overrides], sweeps=False)
    try:
        with hydra.initialize(version_base="1.3", config_path=None):
            return run_of(hydra.compose(CONFIG, overrides=words))
    except (HydraException, OmegaConfBaseException) as error:
        raise ContractError(_reason(error)) from error


def run_of(composed: Any) -> Run:
    """The run of a composed config."""
    from omegaconf import OmegaConf

    if OmegaConf.is_missing(composed, "data"):
        raise ContractError("no data: expected data=PATH or data=NAME, the dataset to train on")
    values: dict[str, Any] = OmegaConf.to_container(composed, resolve=True)  # type: ignore[assignment]
    chosen, data, out, name = (values.pop(key) for key in ("chosen", "data", "out", "name"))
    base = TrainConfig.preset(chosen["preset"], chosen["model"])
    named = _changed(_plain(base), values)
    model = config_from_dict(chosen["model"], values.pop("model"))
    tuples = {key: tuple(value) for key, value in values.items() if isinstance(value, list)}
    config = TrainConfig(model=model, **{**values, **tuples})
    name = name or _run_name([chosen["model"], chosen["preset"], Path(data).stem], named)
    return Run(data, Path(out).expanduser() if out else get_cache_dir() / CHECKPOINTS / name, config)


def checked(words: Sequence[str], *, sweeps: bool) -> list[str]:
    """`words` as Hydra takes them: short names written out, entries of dicts allowed to be new.

    `sweeps` also allows several values for a key, and Hydra's own keys. Raises ContractError as `compose_run` does.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        parsed = OverridesParser.create().parse_overrides(list(words))
    except HydraException as error:
        raise ContractError(f"{_reason(error)}; expected KEY=VALUE") from error
    chosen = {o.key_or_group: o for o in parsed if o.key_or_group in _GROUPS}
    models = [m for m in _values(chosen.get("model"), "lewm") if _known_preset(m, chosen.get("preset"))]
    known = _known_keys(models)
    accepted = []
    for word, override in zip(words, parsed, strict=True):
        key = override.key_or_group
        if "_target_" in word:
            raise ContractError(f"{word}: _target_ has no meaning here, a config never names code to call")
        if sweeps and re.match(r"[+~]*hydra[./]", word):
            accepted.append(word)
            continue
        if not sweeps and override.is_sweep_override():
            raise ContractError(
                f"{word}: several values for one key; use python -m {__package__} --multirun, or quote the value"
            )
        full = _SHORT.get(key, key)
        if full not in known and full.rpartition(".")[0] not in _dict_keys(models):
            raise ContractError(f"unknown key {key!r}{_nearest(key, known)}")
        if override.is_delete():
            raise ContractError(f"{word}: a value can be changed, not removed")
        added = full in known or word.startswith("+")
        accepted.append(("" if added else "++") + word.replace(key, full, 1))
    return accepted


@cache
def register() -> None:
    """Put the configs of all models and presets into Hydra's store."""
    from hydra.core.config_store import ConfigStore

    require("hydra", "train")
    store = ConfigStore.instance()
    names = {**{name: name for name in PRESETS}, **ALIASES}
    for name, model_type in names.items():
        store.store(group="model", name=name, node={}, package="_global_")
        for preset in PRESETS[model_type]:
            node = _node(model_type, preset)
            store.store(group="values", name=f"{name}-{preset}", node=node, package="_global_")
    for preset in {preset for rows in PRESETS.values() for preset in rows}:
        store.store(group="preset", name=preset, node={}, package="_global_")
    defaults = [
        "_self_",
        {"model": "lewm"},
        {"preset": "small"},
        {"values": "${model}-${preset}"},
        {"override hydra/job_logging": "none"},
        {"override hydra/hydra_logging": "none"},
    ]
    # A run has a folder of its own, to which Hydra adds nothing; what a launcher writes goes beside them.
    jobs = get_cache_dir() / CHECKPOINTS / "multirun"
    folders = {"run": {"dir": "."}, "sweep": {"dir": f"{jobs}/${{now:%Y-%m-%d_%H-%M-%S}}", "subdir": "."}}
    store.store(name=CONFIG, node={"defaults": defaults, "hydra": {**folders, "output_subdir": None}})


def _node(model_type: str, preset: str) -> Any:
    """A mutable dataclass with a preset's values, of which Hydra takes names and types."""
    config = TrainConfig.preset(preset, model_type)
    model = _mutable(config.model, {})
    own = {
        "data": (str, "???"),
        "out": (str | None, None),
        "name": (str | None, None),
        "chosen": (dict[str, str], {"model": model_type, "preset": preset}),
    }
    changed = {"model": (type(model), model), "scalers": (dict[str, str], dict(config.scalers))}
    return _mutable(config, changed, own)


def _mutable(config: Any, changed: dict[str, Any], more: dict[str, Any] | None = None) -> Any:
    hints = typing.get_type_hints(type(config))
    fields = {f.name: (hints[f.name], getattr(config, f.name)) for f in dataclasses.fields(config)}
    spec = [
        (name, kind, dataclasses.field(default_factory=partial(copy.deepcopy, value)))
        for name, (kind, value) in {**(more or {}), **fields, **changed}.items()
    ]
    return dataclasses.make_dataclass(type(config).__name__, spec)()


def _known_preset(model: str, preset: Any) -> bool:
    for name in _values(preset, "small"):
        preset_values(model, name)  # ContractError
    return True


def _values(override: Any, default: str) -> list[str]:
    """What a group is set to; several of a sweep."""
    if override is None:
        return [default]
    if override.is_sweep_override():
        return [str(getattr(value, "text", value)) for value in getattr(override.value(), "list", [])] or [default]
    return [str(override.value())]


def _configs(models: Iterable[str]) -> list[Any]:
    return [preset_values(model, "small")["model"] for model in models]


def _known_keys(models: list[str]) -> set[str]:
    own = {field.name for field in dataclasses.fields(TrainConfig)}
    of_model = {f"model.{field.name}" for config in _configs(models) for field in dataclasses.fields(config)}
    return {*own, *of_model, *_GROUPS, *_RUN_KEYS}


def _dict_keys(models: list[str]) -> set[str]:
    """Keys whose entries may be new."""
    configs = _configs(models)
    names = {
        f.name for config in configs for f in dataclasses.fields(config) if isinstance(getattr(config, f.name), dict)
    }
    return {"scalers", *(f"model.{name}" for name in names)}


def _nearest(key: str, known: Iterable[str]) -> str:
    by_end = {name.rpartition(".")[2]: name for name in sorted(known, reverse=True)}
    close = difflib.get_close_matches(key, [*known], 1) or difflib.get_close_matches(
        key.rpartition(".")[2], [*by_end], 1
    )
    if close:
        return f"; did you mean {by_end.get(close[0], close[0])!r}?"
    return f": expected model.KEY or one of {sorted(name for name in known if not name.startswith('model.'))}"


def _quoted(word: str) -> str:
    """Quote a path or a name, which may hold characters that mean something in an override."""
    key, equals, value = word.partition("=")
    if key not in _RUN_KEYS or not value or value[0] in "'\"" or value == "null":
        return word
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"{key}{equals}'{escaped}'"


def _plain(config: TrainConfig) -> dict[str, Any]:
    return {**dataclasses.asdict(config), "scalers": dict(config.scalers)}


def _changed(base: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """The values that differ from those of the preset, by dotted key."""
    before, now = ({key: _listed(value) for key, value in flatten_dict(nested).items()} for nested in (base, values))
    return {key: value for key, value in now.items() if key not in _UNNAMED and before.get(key) != value}


def _listed(value: Any) -> Any:
    """Tuples as lists, as they are in a composed config."""
    return list(value) if isinstance(value, tuple) else value


def _run_name(parts: list[str], changed: dict[str, Any]) -> str:
    """The same for equal runs, another for others, so that the same words continue a run."""
    words = [f"{key.removeprefix('model.')}={value}" for key, value in sorted(changed.items())]
    name = re.sub(r"[^\w.=+-]+", "-", "_".join([*parts, *words])).strip("-")
    if len(name) <= _LONGEST_NAME:
        return name
    return f"{name[: _LONGEST_NAME - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _reason(error: Exception) -> str:
    """What was wrong, without where in Hydra it was noticed."""
    lines = [str(e).partition("\n")[0].strip() for e in (error, error.__cause__) if e is not None]
    return ": ".join(dict.fromkeys(lines))
