"""One simulated model with its factors and its pictures, whoever compiled it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from stable_worldmodel.envs.mujoco.factors import Factor, FactorEngine
from stable_worldmodel.envs.mujoco.quality import quality_named
from stable_worldmodel.envs.mujoco.renderer import Look, Renderer, digest_of
from stable_worldmodel.errors import ContractError, require


class Simulation:
    """A model and its data, the factors of a table applied to them, and pictures of them.

    Nothing here steps: the package that owns the model does. At the start of an episode call `restore`, let the task
    place its things, then `finish`.

    Args:
        model, data: `mujoco.MjModel` as compiled, and the `mujoco.MjData` that is stepped.
        table: the factors.
        quality: "full", "matched" or "fast".
        look: see Renderer.
        digest: of the model, where it is known; models with the same one share GL resources.
        smooth: longest side of the pictures that "matched" multisamples.

    Attributes:
        factors: the engine of the table; `factors.space` is the variation space.
    """

    def __init__(
        self,
        model: Any,
        data: Any,
        table: Sequence[Factor],
        quality: str = "matched",
        look: Look | None = None,
        digest: str | None = None,
        smooth: int = 0,
    ):
        self.model, self.data = model, data
        self.factors = FactorEngine(table, model)
        self._quality = quality_named(quality, smooth)
        self._look = look
        self._digest = digest or digest_of(model)
        self._renderer: Renderer | None = None
        self._scratch: Any = None

    @property
    def quality(self) -> str:
        """Level of detail of the pictures."""
        return self._quality.name

    @property
    def scratch(self) -> Any:
        """An MjData of this model for whatever must not disturb the episode; its content is not kept."""
        if self._scratch is None:
            self._scratch = require("mujoco", "env").MjData(self.model)
        return self._scratch

    def restore(self) -> None:
        """Put the model back as compiled and apply the factors, but for those that `finish` applies."""
        self.factors.restore(self.model, self.scratch if self._needs_scratch else None)
        if self._renderer is not None:
            self._renderer.repaint(self.factors.own_textures, self.factors.changed_textures)

    def finish(self) -> None:
        """Apply the factors that override what a task placed."""
        self.factors.finish(self.model)

    def camera(self, camera: Any) -> Any:
        """The number of a camera given by number or name, else ContractError; an MjvCamera is returned as it is."""
        import mujoco

        if isinstance(camera, mujoco.MjvCamera):
            return camera
        if isinstance(camera, str):
            number = mujoco.mj_name2id(self.model, mujoco.mjtObj.mjOBJ_CAMERA, camera)
        else:
            number = int(camera)
        if not 0 <= number < self.model.ncam:
            names = [self.model.camera(i).name for i in range(self.model.ncam)]
            raise ContractError(f"camera={camera!r}: expected 0 … {self.model.ncam - 1} or one of {', '.join(names)}")
        return number

    def picture(
        self, shape: tuple[int, int], camera: Any = 0, data: Any = None, out: np.ndarray | None = None
    ) -> np.ndarray:
        """A picture uint8 (H, W, 3) of `data` (default: the present), new or written into `out`."""
        if self._renderer is None:
            self._renderer = Renderer(
                self.model,
                self._quality,
                self._digest,
                lambda: self.factors.pristine_textures(self.model),
                self._look,
            )
            self._renderer.repaint(self.factors.own_textures, self.factors.own_textures)
        if out is None:
            out = np.empty((*shape, 3), np.uint8)
        return self._renderer.draw(self.data if data is None else data, self.camera(camera), out)

    def picture_at(self, qpos: Any, shape: tuple[int, int], camera: Any = 0) -> np.ndarray:
        """A picture of the present scene in another configuration, which leaves the present as it is."""
        import mujoco

        other = self.scratch
        mujoco.mj_resetData(self.model, other)
        other.qpos[:] = self._checked("qpos", qpos, self.model.nq)
        other.mocap_pos[:], other.mocap_quat[:] = self.data.mocap_pos, self.data.mocap_quat
        mujoco.mj_fwdPosition(self.model, other)
        return self.picture(shape, camera, other)

    def write_state(self, qpos: Any, qvel: Any, act: Any = None, warmstart: Any = None) -> None:
        """Write positions and velocities, and if known activations and the solver's warm start; nothing is computed."""
        self.data.qpos[:] = self._checked("qpos", qpos, self.model.nq)
        self.data.qvel[:] = self._checked("qvel", qvel, self.model.nv)
        if act is not None:
            self.data.act[:] = self._checked("act", act, self.model.na)
        if warmstart is not None:
            self.data.qacc_warmstart[:] = self._checked("qacc_warmstart", warmstart, self.model.nv)

    def run_ahead(self, controls: np.ndarray, substeps: int) -> np.ndarray:
        """States (K, T, nq + nv) after each of the commands (K, T, nu), held for `substeps`, from the present on."""
        import mujoco

        model, ahead, what = self.model, self.scratch, int(mujoco.mjtState.mjSTATE_INTEGRATION)
        start = np.empty(mujoco.mj_stateSize(model, what))
        mujoco.mj_getState(model, self.data, start, what)
        states = np.empty((*controls.shape[:2], model.nq + model.nv))
        for sequence, row in zip(controls, states, strict=True):
            mujoco.mj_setState(model, ahead, start, what)
            for control, state in zip(sequence, row, strict=True):
                ahead.ctrl[:] = control
                mujoco.mj_step(model, ahead, substeps)
                state[: model.nq], state[model.nq :] = ahead.qpos, ahead.qvel
        return states

    def close(self) -> None:
        """Give GL resources back."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    # ------------------------------------------------------------------ copies
    def detached(self) -> Simulation:
        """A copy without model, data and GL, which can be pickled; `attach` completes it."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__, model=None, data=None, _renderer=None, _scratch=None)
        return other

    def attach(self, model: Any, data: Any) -> None:
        """Take a copy of the model and the data that were left out by `detached`."""
        self.model, self.data = model, data

    @property
    def _needs_scratch(self) -> bool:
        return any(factor.effect.structural for factor in self.factors.table)

    @staticmethod
    def _checked(name: str, values: Any, size: int) -> np.ndarray:
        found = np.asarray(values, np.float64).reshape(-1)
        if found.shape != (size,) or not np.isfinite(found).all():
            raise ContractError(f"{name}={values!r}: expected {size} finite numbers")
        return found
