"""The GL context of this process: created when first needed, one for all environments, gone without a word at exit.

The backend is `MUJOCO_GL` (egl, osmesa or glfw) if that is set; else EGL, which finds a GPU or Mesa's software renderer
without a display, else OSMesa, else GLFW.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import importlib
import logging
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stable_worldmodel.errors import require

logger = logging.getLogger(__name__)

BACKENDS = ("egl", "osmesa", "glfw")
_OFF = "off"  # what dm_control takes for "no renderer"
_SOFTWARE = ("llvmpipe", "softpipe", "swrast", "software")


@dataclass(frozen=True)
class Backend:
    """What draws: `name` of the backend, and GL's own words for vendor, renderer and version."""

    name: str
    vendor: str
    renderer: str
    version: str

    @property
    def software(self) -> bool:
        """Whether a CPU draws."""
        return any(word in self.renderer.lower() for word in _SOFTWARE)


class _Process:
    """What exists once per process."""

    context: Any = None  # of mujoco.egl, mujoco.osmesa or mujoco.glfw
    backend: Backend | None = None
    thread = 0
    inherited = False  # whether this process was forked from one that had a context


def candidates() -> Iterator[str]:
    """Names of the backends to try, in this order; each is looked for when it is its turn."""
    wanted = os.environ.get("MUJOCO_GL", "").lower()
    if wanted:
        yield from (name for name in BACKENDS if name == wanted)
        return  # anything else switches drawing off
    if _egl_has_devices():
        yield "egl"
    if _has_osmesa():
        yield "osmesa"
    if os.environ.get("DISPLAY"):
        yield "glfw"


def backend() -> Backend:
    """What draws in this process; creates the context. Raises RuntimeError where nothing can draw."""
    make_current()
    return _Process.backend  # type: ignore[return-value]  # there is one as soon as there is a context


def make_current() -> None:
    """Make the context of this process current, and create it if there is none.

    Raises:
        RuntimeError: there is no GL library, the process was forked from one that draws, or another thread draws.
    """
    if _Process.context is None:
        _create()
    elif threading.get_ident() != _Process.thread:
        raise RuntimeError("pictures are drawn by another thread of this process: draw in one thread only")
    _Process.context.make_current()


@contextlib.contextmanager
def chosen_for_imports() -> Iterator[None]:
    """Let packages that read `MUJOCO_GL` when they are imported see the backend that is used here."""
    before = os.environ.get("MUJOCO_GL")
    if not before:
        os.environ["MUJOCO_GL"] = next(candidates(), _OFF)
    try:
        yield
    finally:
        if before is None:
            os.environ.pop("MUJOCO_GL", None)
        else:
            os.environ["MUJOCO_GL"] = before
        _leave_first()


def _create() -> None:
    if _Process.inherited:
        raise RuntimeError(
            "this process was forked from one that had drawn pictures, and a GL context does not survive a fork: "
            "start processes with 'spawn', or use World(backend='process')"
        )
    require("mujoco", "env")
    failures = []
    for name in candidates():
        try:
            context = importlib.import_module(f"mujoco.{name}").GLContext(64, 64)
            context.make_current()
        except Exception as error:  # whatever a driver or its loader raises; the next backend may work
            failures.append(f"{name}: {error}")
            continue
        _Process.context, _Process.thread = context, threading.get_ident()
        _Process.backend = _describe(name)
        _leave_first()
        level = logging.WARNING if _Process.backend.software and Path("/dev/nvidia0").exists() else logging.INFO
        logger.log(level, "drawing with %s", _Process.backend)
        return
    tried = "; ".join(failures) or f"MUJOCO_GL={os.environ.get('MUJOCO_GL', '')!r}, no libEGL, no libOSMesa, no DISPLAY"
    raise RuntimeError(
        f"no GL backend works ({tried}); on Debian install libegl1 libgl1 libopengl0, or set MUJOCO_GL to one of "
        f"{', '.join(BACKENDS)}"
    )


def _describe(name: str) -> Backend:
    from OpenGL import GL

    vendor, renderer, version = (
        (GL.glGetString(what) or b"").decode(errors="replace") for what in (GL.GL_VENDOR, GL.GL_RENDERER, GL.GL_VERSION)
    )
    return Backend(name, vendor, renderer, version)


# ---------------------------------------------------------------------- looking before leaping
# PyOpenGL settles on a platform when it is first imported, so a backend that cannot work must not be tried.


def _egl_has_devices() -> bool:
    try:
        egl = ctypes.CDLL("libEGL.so.1")
        egl.eglGetProcAddress.restype = ctypes.c_void_p
        address = egl.eglGetProcAddress(b"eglQueryDevicesEXT")
    except (OSError, AttributeError):
        return False
    if not address:
        return False
    count = ctypes.c_int()
    query = ctypes.CFUNCTYPE(ctypes.c_uint, ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(ctypes.c_int))(address)
    return bool(query(0, None, ctypes.byref(count))) and count.value > 0


def _has_osmesa() -> bool:
    for name in ("libOSMesa.so.8", "libOSMesa.so.6", "libOSMesa.so"):
        with contextlib.suppress(OSError):
            ctypes.CDLL(name)
            return True
    return False


# ---------------------------------------------------------------------- the end
# Destructors that run while the interpreter is taken apart print errors; handlers run in reverse order of registration,
# so ours is registered again after anything that terminates the display.


def _leave_first() -> None:
    atexit.unregister(_leave)
    if _Process.context is not None:
        atexit.register(_leave)


def _leave() -> None:
    from stable_worldmodel.envs.mujoco import renderer

    with contextlib.suppress(Exception):
        renderer.free_all()
    with contextlib.suppress(Exception):
        _Process.context.free()
    _Process.context = None


def _forget() -> None:
    if _Process.context is not None:
        _Process.inherited = True
        # Kept alive and never freed: what it stands for belongs to the parent.
        _orphans.append(_Process.context)
        _Process.context = None
        atexit.unregister(_leave)


_orphans: list[Any] = []
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
