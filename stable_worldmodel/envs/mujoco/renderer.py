"""Pictures of one compiled model, drawn straight at the size asked for.

Meshes, textures and the frame buffer live on the GL side, once for all models of a process that look the same; what an
environment has changed in its own model (poses, colours, lights) is read from there at every frame, and a texture it
has repainted is its own.
"""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from stable_worldmodel.envs.mujoco import gl
from stable_worldmodel.envs.mujoco.quality import Quality, restore
from stable_worldmodel.errors import ContractError, require

_MAX_GEOMS = 2000  # of a scene, at least; MuJoCo leaves out what is beyond


@dataclass
class _Shared:
    """GL resources of one look, size and quality."""

    context: Any  # mujoco.MjrContext
    users: int = 0


class _Drawn:
    """What was drawn last in this process."""

    digest: str | None = None


_shared: dict[tuple, _Shared] = {}
Look = Callable[[int], Any]  # longest side of a picture -> the model to take meshes and textures from


@dataclass
class _Held:
    """What a renderer holds on the GL side; separate, so that it can be given back when the renderer is gone."""

    key: tuple | None = None
    textures: dict[int, int] = field(default_factory=dict)  # of the model -> GL name

    def free(self) -> None:
        """Give everything back. Does nothing once the process has no context any more."""
        if self.key in _shared:
            gl.make_current()
            if self.textures:
                from OpenGL import GL

                _forget_errors()
                GL.glDeleteTextures(list(self.textures.values()))
            shared = _shared[self.key]
            shared.users -= 1
            if not shared.users:
                shared.context.free()
                del _shared[self.key]
        self.key, self.textures = None, {}


class Renderer:
    """Draws the states of one model.

    Args:
        model: what is drawn.
        quality: level of detail.
        digest: of the model as it was compiled; those with the same one share GL resources.
        pristine: a context in which the textures of the model are as compiled.
        look: longest side of a picture -> a model with the same geoms to take meshes and textures from, such as one
            with simplified meshes; None for the model itself.
    """

    def __init__(
        self,
        model: Any,
        quality: Quality,
        digest: str,
        pristine: Callable[[], AbstractContextManager[Any]] = nullcontext,
        look: Look | None = None,
    ):
        self._mujoco: Any = require("mujoco", "env")
        self._model, self._look, self._quality = model, look, quality
        self._digest, self._pristine = digest, pristine
        self._held = _Held()
        self._stale: set[int] = set()  # own textures that changed since they were last sent
        self._own: set[int] = set()
        self._scene: Any = None
        self._options = self._mujoco.MjvOption()
        self._camera = self._mujoco.MjvCamera()
        self._camera.type = self._mujoco.mjtCamera.mjCAMERA_FIXED
        # GL must outlive it, which `gl` sees to at exit.
        self._finalizer = weakref.finalize(self, self._held.free)
        self._finalizer.atexit = False

    def repaint(self, textures: set[int], changed: set[int]) -> None:
        """Say which textures of the model differ from what it was compiled with, and which changed just now."""
        self._own = set(textures)
        self._stale = (self._stale | changed) & self._own

    def draw(self, data: Any, camera: Any, out: np.ndarray) -> np.ndarray:
        """Draw the state `data` as `camera` (number or MjvCamera) sees it into `out`, uint8 (H, W, 3); return it."""
        height, width = out.shape[:2]
        if out.dtype != np.uint8 or out.shape != (height, width, 3):
            raise ContractError(f"out: expected uint8 (H, W, 3), found {out.dtype} {out.shape}")
        gl.make_current()
        mujoco, context = self._mujoco, self._context(height, width)
        if self._scene is None:
            self._scene = self._new_scene()
        view = self._camera
        if isinstance(camera, int):
            view.fixedcamid = camera
        else:
            view = camera
        everything = int(mujoco.mjtCatBit.mjCAT_ALL)
        mujoco.mjv_updateScene(self._model, data, self._options, None, view, everything, self._scene)
        viewport = mujoco.MjrRect(0, 0, width, height)
        upside_down = np.empty_like(out, order="C")
        mujoco.mjr_setBuffer(int(mujoco.mjtFramebuffer.mjFB_OFFSCREEN), context)
        common = {texture: int(context.texture[texture]) for texture in self._own}
        if _Drawn.digest != self._digest:
            _forget_lights()
            _Drawn.digest = self._digest
        try:
            self._bind_own_textures(context)
            mujoco.mjr_render(viewport, self._scene, context)
        finally:
            for texture, name in common.items():
                context.texture[texture] = name
        mujoco.mjr_readPixels(upside_down, None, viewport, context)
        out[:] = upside_down[::-1]
        return out

    def close(self) -> None:
        """Give GL resources back; drawing again takes new ones."""
        self._stale |= self._own
        self._held.free()

    def _context(self, height: int, width: int) -> Any:
        key = (self._digest, self._quality.name, height, width)
        if self._held.key == key:
            return _shared[key].context
        self.close()
        if key not in _shared:
            _shared[key] = _Shared(self._upload(height, width))
        _shared[key].users += 1
        self._held.key = key
        return _shared[key].context

    def _upload(self, height: int, width: int) -> Any:
        mujoco, side = self._mujoco, max(height, width)
        model = self._model if self._look is None else self._look(side)
        screen = model.vis.global_
        before, size = self._quality.configure(model, side), (screen.offheight, screen.offwidth)
        screen.offheight, screen.offwidth = height, width
        _forget_errors()
        try:
            with self._pristine():
                return mujoco.MjrContext(model, int(mujoco.mjtFontScale.mjFONTSCALE_50))
        finally:
            restore(model, before)
            screen.offheight, screen.offwidth = size

    def _new_scene(self) -> Any:
        mujoco, model = self._mujoco, self._model
        scene = mujoco.MjvScene(model, max(_MAX_GEOMS, 2 * (model.ngeom + model.nsite)))
        scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = self._quality.shadows
        scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = self._quality.reflections
        return scene

    def _bind_own_textures(self, context: Any) -> None:
        """Put own textures in the places of the common ones, and send those that changed."""
        if not self._own:
            return
        from OpenGL import GL

        _forget_errors()
        for texture in self._own:
            if texture not in self._held.textures:
                self._held.textures[texture] = int(GL.glGenTextures(1))
                self._stale.add(texture)
            context.texture[texture] = self._held.textures[texture]
            if texture in self._stale:
                self._mujoco.mjr_uploadTexture(self._model, context, texture)
        self._stale.clear()


def _forget_errors() -> None:
    """Mesa leaves an error code behind when it draws some sky boxes, which whoever looks next would report."""
    from OpenGL import GL

    while GL.glGetError():
        pass


def _forget_lights() -> None:
    """Give all lights the parameters that they have in a new GL context.

    MuJoCo sets those of spot lights only, and a directional light would shine through the cone that a spot light of
    another model has left behind.
    """
    from OpenGL import GL

    defaults = {
        GL.GL_SPOT_EXPONENT: 0.0,
        GL.GL_SPOT_CUTOFF: 180.0,
        GL.GL_CONSTANT_ATTENUATION: 1.0,
        GL.GL_LINEAR_ATTENUATION: 0.0,
        GL.GL_QUADRATIC_ATTENUATION: 0.0,
    }
    _forget_errors()
    for light in range(GL.GL_LIGHT0, GL.GL_LIGHT0 + 8):
        for parameter, value in defaults.items():
            GL.glLightf(light, parameter, value)


def digest_of(model: Any) -> str:
    """A hash of everything in a compiled model."""
    import mujoco

    content = np.empty(mujoco.mj_sizeModel(model), np.uint8)
    mujoco.mj_saveModel(model, None, content)
    return hashlib.blake2b(content.tobytes(), digest_size=16).hexdigest()


def free_all() -> None:
    """Free the GL resources of all renderers."""
    for shared in _shared.values():
        shared.context.free()
    _shared.clear()
