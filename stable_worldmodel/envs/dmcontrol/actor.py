"""Trained SAC actors, read without executing anything that a file contains."""

from __future__ import annotations

import io
import itertools
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stable_worldmodel.errors import ContractError, NotFoundError, require

Layer = tuple[np.ndarray, np.ndarray]  # weight (out, in) and bias (out,)


@dataclass(frozen=True)
class Actor:
    """A perceptron with ReLU between its layers, whose last one gives means and log standard deviations.

    Attributes:
        layers: from the input on; the last has 2 A outputs.
        mean, var: of the observations, (O,).
    """

    layers: tuple[Layer, ...]
    mean: np.ndarray
    var: np.ndarray

    def act(self, observations: np.ndarray, draws: np.ndarray) -> np.ndarray:
        """Actions (N, A) in [-1, 1] for observations (N, O), drawn by standard normal numbers `draws` (N, A)."""
        values = np.clip((observations - self.mean) / np.sqrt(self.var + 1e-8), -10.0, 10.0)
        for weight, bias in self.layers[:-1]:
            values = np.maximum(values @ weight.T + bias, 0.0)
        weight, bias = self.layers[-1]
        mean, log_std = np.split(values @ weight.T + bias, 2, axis=1)
        return np.tanh(mean + np.exp(np.clip(log_std, -20.0, 2.0)) * draws)


def load_actor(path: str | Path, statistics: str | Path | None = None) -> Actor:
    """Read an actor.

    Args:
        path: .npz or .safetensors with `layers.<i>.weight` and `layers.<i>.bias`, the last layer giving means and then
            log standard deviations; or the .zip of a Stable-Baselines3 SAC model, whose weights are read and whose
            pickled parts are not.
        statistics: .npz with `mean` and `var` of the observations; default: those in the checkpoint, else none.

    Raises:
        NotFoundError: a file does not exist.
        ContractError: a file is not of these kinds, or the sizes in it do not fit together.
    """
    path = Path(path)
    if not path.is_file():
        raise NotFoundError(f"no checkpoint {str(path)!r}")
    if path.suffix not in _READERS:
        raise ContractError(f"checkpoint {path.name!r}: expected a file of type {', '.join(_READERS)}")
    tensors = _READERS[path.suffix](path)
    layers = _layers(tensors, path.name)
    size = layers[0][0].shape[1]
    found = _npz(_statistics_file(statistics)) if statistics is not None else tensors
    mean, var = (np.asarray(found.get(key, fill), np.float64) for key, fill in _NEUTRAL.items())
    for key, value in (("mean", mean), ("var", var)):
        if value.shape not in ((), (size,)):
            raise ContractError(f"{key} has shape {value.shape}: expected ({size},), the actor's input")
    return Actor(layers, mean, var)


_NEUTRAL = {"mean": 0.0, "var": 1.0}


def _statistics_file(path: str | Path) -> Path:
    path = Path(path)
    if not path.is_file():
        raise NotFoundError(f"no statistics {str(path)!r}")
    if path.suffix != ".npz":
        raise ContractError(
            f"statistics {path.name!r}: expected an .npz with `mean` and `var`. Pickles are not read, because they may "
            "execute code; from a VecNormalize v you trust: np.savez(path, mean=v.obs_rms.mean, var=v.obs_rms.var)"
        )
    return path


def _layers(tensors: Mapping[str, np.ndarray], name: str) -> tuple[Layer, ...]:
    count = sum(key.endswith(".weight") for key in tensors)
    try:
        layers = [(tensors[f"layers.{i}.weight"], tensors[f"layers.{i}.bias"]) for i in range(count)]
    except KeyError as missing:
        raise ContractError(f"checkpoint {name!r} has no {missing}; it has {sorted(tensors)}") from None
    sizes = [(weight.shape, bias.shape) for weight, bias in layers]
    chained = all(a[0][0] == b[0][1] for a, b in itertools.pairwise(sizes))
    if not layers or not chained or any(len(w) != 2 or b != w[:1] for w, b in sizes) or sizes[-1][0][0] % 2:
        raise ContractError(f"checkpoint {name!r}: layers of sizes {sizes} make no actor")
    return tuple((np.asarray(weight, np.float64), np.asarray(bias, np.float64)) for weight, bias in layers)


def _npz(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as stored:
            return dict(stored)
    except (ValueError, zipfile.BadZipFile) as error:
        raise ContractError(f"{path.name!r} is no .npz of plain arrays: {error}") from None


def _safetensors(path: Path) -> dict[str, np.ndarray]:
    return require("safetensors.numpy").load_file(path)


def _stable_baselines(path: Path) -> dict[str, np.ndarray]:
    """The actor of `policy.pth`: hidden layers `latent_pi.0, .2, …`, then `mu` and `log_std` side by side."""
    torch = require("torch")
    try:
        with zipfile.ZipFile(path) as archive:
            weights = torch.load(io.BytesIO(archive.read("policy.pth")), weights_only=True, map_location="cpu")
    except (KeyError, zipfile.BadZipFile) as error:
        raise ContractError(f"{path.name!r} is no Stable-Baselines3 model: {error}") from None
    actor = {key.removeprefix("actor."): value.numpy() for key, value in weights.items() if key.startswith("actor.")}
    hidden = sorted({int(key.split(".")[1]) for key in actor if key.startswith("latent_pi.")})
    names = [f"latent_pi.{i}" for i in hidden]
    if "mu.weight" not in actor or "log_std.weight" not in actor:
        raise ContractError(f"{path.name!r} has no SAC actor; it has {sorted(weights)}")
    tensors = {}
    for part in ("weight", "bias"):
        for i, name in enumerate(names):
            tensors[f"layers.{i}.{part}"] = actor[f"{name}.{part}"]
        tensors[f"layers.{len(names)}.{part}"] = np.concatenate([actor[f"mu.{part}"], actor[f"log_std.{part}"]])
    return tensors


_READERS = {".npz": _npz, ".safetensors": _safetensors, ".zip": _stable_baselines}
