"""Our trained models as folders in LeRobot's layout: `config.json`, `model.safetensors`, and the env they act in."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stable_worldmodel.errors import ContractError, NotFoundError
from stable_worldmodel.lerobot.configs import EnvConfig, env_config_from_dict
from stable_worldmodel.lerobot.constants import (
    ENV_CONFIG_FILE,
    POLICY_CONFIG_FILE,
    POLICY_POSTPROCESSOR,
    POLICY_PREPROCESSOR,
    POLICY_WEIGHTS_FILE,
)
from stable_worldmodel.lerobot.features import FeatureType, env_to_policy_features
from stable_worldmodel.utils.files import write_json

if TYPE_CHECKING:
    from stable_worldmodel.wm.checkpoint import Checkpoint

POLICY_TYPE = "stable_worldmodel"
_OWN = "stable_worldmodel"  # the key of config.json that holds what LeRobot has no place for


@dataclass(frozen=True)
class Exported:
    """An exported folder, loaded."""

    checkpoint: Checkpoint
    env: EnvConfig
    config: dict[str, Any]  # LeRobot's part of config.json


def export_policy(
    model: Any,
    folder: str | Path,
    env: EnvConfig,
    *,
    scalers: Mapping[str, Any] | None = None,
    n_obs_steps: int = 1,
    n_action_steps: int = 1,
    protocol: Mapping[str, Any] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Path:
    """Write a trained model, or the checkpoint of that name, and return the folder.

    It gets `config.json` (input and output features in LeRobot's names), `model.safetensors`, `env_config.json`, and
    two processor pipelines that only add a batch axis and move tensors: the model scales its inputs by `scalers`.

    Args:
        model: a model of this library, or the name or folder of a checkpoint, whose scalers are kept.
        env: the env it was trained for.
        n_obs_steps, n_action_steps: frames it looks at, actions it executes before it decides again.
        protocol, extra: JSON values; how it is evaluated, and anything else.
    """
    from stable_worldmodel.wm.checkpoint import CONFIG_FILE, WEIGHTS_FILE, load_checkpoint, save_pretrained

    split: Mapping[str, Any] = {}
    if isinstance(model, (str, Path)):
        found = load_checkpoint(model)
        model, split, scalers = found.model, found.split, {**found.scalers, **(scalers or {})}
        protocol, extra = {**found.protocol, **(protocol or {})}, {**found.extra, **(extra or {})}
    features = env_to_policy_features(env)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".export") as place:
        save_pretrained(model, place, scalers=scalers, split=split, protocol=protocol, extra=extra)
        config = {
            "type": POLICY_TYPE,
            "input_features": {k: f.to_dict() for k, f in features.items() if f.type is not FeatureType.ACTION},
            "output_features": {k: f.to_dict() for k, f in features.items() if f.type is FeatureType.ACTION},
            "n_obs_steps": n_obs_steps,
            "n_action_steps": n_action_steps,
            "normalization_mapping": {kind.value: "IDENTITY" for kind in FeatureType},
            "device": "cpu",
            "use_amp": False,
            _OWN: json.loads((Path(place) / CONFIG_FILE).read_text()),
        }
        write_json(folder / ENV_CONFIG_FILE, env.to_dict())
        for name, steps in _PIPELINES.items():
            write_json(folder / f"{name}.json", {"name": name, "steps": steps})
        (Path(place) / WEIGHTS_FILE).replace(folder / POLICY_WEIGHTS_FILE)
        write_json(folder / POLICY_CONFIG_FILE, config)
    return folder


_TO_CPU = {"registry_name": "device_processor", "config": {"device": "cpu", "float_dtype": None}}
_PIPELINES: dict[str, list[dict[str, Any]]] = {
    POLICY_PREPROCESSOR: [
        {"registry_name": "rename_observations_processor", "config": {"rename_map": {}}},
        {"registry_name": "to_batch_processor", "config": {}},
        _TO_CPU,
    ],
    POLICY_POSTPROCESSOR: [_TO_CPU],
}


def load_exported(folder: str | Path) -> Exported:
    """The model, in eval mode on the CPU, and the env of a folder that `export_policy` wrote.

    Raises NotFoundError for a missing file, ContractError for a folder of another kind or damaged weights.
    """
    from stable_worldmodel.wm.checkpoint import CONFIG_FILE, WEIGHTS_FILE, load_checkpoint

    folder = Path(folder)
    for name in (POLICY_CONFIG_FILE, POLICY_WEIGHTS_FILE, ENV_CONFIG_FILE):
        if not (folder / name).is_file():
            raise NotFoundError(f"{folder} has no {name}: expected a folder written by export_policy")
    config = json.loads((folder / POLICY_CONFIG_FILE).read_text())
    if config.get("type") != POLICY_TYPE or _OWN not in config:
        raise ContractError(
            f"{folder} holds a policy of type {config.get('type')!r}: expected {POLICY_TYPE!r}; LeRobot's own policies "
            "are run by LeRobotPolicy"
        )
    env = env_config_from_dict(json.loads((folder / ENV_CONFIG_FILE).read_text()))
    with tempfile.TemporaryDirectory() as place:
        write_json(Path(place) / CONFIG_FILE, config.pop(_OWN))
        (Path(place) / WEIGHTS_FILE).symlink_to((folder / POLICY_WEIGHTS_FILE).resolve())
        return Exported(load_checkpoint(place), env, config)
