"""The `ogbench` package, and what it leaves to whoever uses it: compiled models, and where randomness comes from."""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from stable_worldmodel.envs.mujoco import gl
from stable_worldmodel.envs.mujoco.meshes import Detail, simplified
from stable_worldmodel.envs.mujoco.renderer import digest_of
from stable_worldmodel.errors import require

ROBOT = "ur5e/"  # prefix of the names of its meshes


def load(module: str) -> Any:
    """Import a module of the package, without what its imports warn about on machines without a display."""
    with gl.chosen_for_imports(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return require(f"ogbench.{module}", "env")


@dataclass(frozen=True)
class Compiled:
    """A compiled model and what stands for it in pictures; compiled once per process, as it takes seconds."""

    model: Any
    digest: str

    def look(self, details: Mapping[float, Detail], side: int) -> Any:
        """What is drawn in a picture of this longest side; `details`: longest side up to which -> how the robot is."""
        detail = next(detail for most, detail in details.items() if side <= most)
        return simplified(self.model, self.digest, detail, ROBOT)

    def __deepcopy__(self, memo: Any) -> Compiled:
        return self  # never written to


_compiled: dict[str, Compiled] = {}


def compiled(xml: str, assets: dict[str, Any]) -> tuple[Any, Compiled]:
    """A new MjModel of `xml`, and what it was copied from."""
    import mujoco

    if xml not in _compiled:
        model = mujoco.MjModel.from_xml_string(xml, assets)
        _compiled[xml] = Compiled(model, digest_of(model))
    return copy.copy(_compiled[xml].model), _compiled[xml]


@contextlib.contextmanager
def seeded(generator: np.random.Generator) -> Iterator[None]:
    """Let the package's draws from NumPy's global stream come from `generator`; the global stream stays as it was."""
    before = np.random.get_state()  # noqa: NPY002
    np.random.seed(int(generator.integers(2**32)))  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(before)  # noqa: NPY002
