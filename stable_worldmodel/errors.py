"""The exceptions this library raises.

Earlier generations promised different types for the same fault, so each class derives from every type a caller may
already be catching.
"""

from __future__ import annotations

import importlib
from types import ModuleType


class ContractError(ValueError, AssertionError):
    """An argument, shape or schema breaks a documented contract."""


class MissingKeyError(KeyError, AssertionError):
    """A requested info key or dataset column does not exist."""

    def __str__(self) -> str:
        # KeyError prints the repr of its argument, which would put a sentence in quotes.
        return str(self.args[0]) if self.args else ""


class PolicyNotSetError(RuntimeError, AttributeError):
    """A rollout was asked for before `set_policy`."""


class NotFoundError(FileNotFoundError, ValueError, AssertionError):
    """A dataset or model that was named does not exist."""


class EnvFault(RuntimeError):
    """An env in a worker process kept raising, hanging or dying, however often its worker was restarted.

    Attributes:
        env: its number in the pool.
        episode: number of the episode in the rollout, None outside of one.
        seed: the episode's, None if it has none.
        step: env steps it had taken.
        trace: the worker's own traceback.
    """

    def __init__(self, reason: str, env: int, seed: int | None, step: int, trace: str, episode: int | None = None):
        super().__init__(reason, env, seed, step, trace, episode)  # all of them, so that it can be pickled
        self.reason = reason
        self.env = env
        self.seed = seed
        self.step = step
        self.trace = trace
        self.episode = episode

    def __str__(self) -> str:
        episode = "" if self.episode is None else f"episode {self.episode}, "
        where = f"env {self.env}, {episode}seed {self.seed}, step {self.step}: {self.reason}"
        return f"{where}\n\n{self.trace.rstrip()}" if self.trace else where


class MissingDependencyError(ImportError):
    """An optional package is needed and not installed; the message names the extra."""


# Optional package -> the extra that installs it.
EXTRAS = {
    "accelerate": "train",
    "av": "report",
    "dm_control": "env",
    "huggingface_hub": "hub",
    "jinja2": "report",
    "lance": "data",
    "matplotlib": "report",
    "mujoco": "env",
    "nevergrad": "planning",
    "pyarrow": "data",
    "safetensors": "train",
    "simplejpeg": "data",
    "tensorboard": "train",
    "torch": "train",
    "transformers": "backbones",
}


def require(module: str, extra: str | None = None) -> ModuleType:
    """Import an optional `module`, or raise MissingDependencyError naming the extra that installs it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        name = extra or EXTRAS.get((error.name or module).partition(".")[0])
        if name is None:
            raise
        raise MissingDependencyError(
            f"{error.name or module!r} could not be imported ({error}); "
            f"install it with: pip install 'stable-worldmodel[{name}]'"
        ) from error
