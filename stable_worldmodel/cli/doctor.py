"""`swm doctor`: whether this machine can do what the library offers, and how fast its pictures are."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from stable_worldmodel.cli.output import JsonOption, print_json

OK, NOTE, WARNING, FAULT = "ok", "note", "warning", "fault"
_MARKS = {OK: ("✓", "green"), NOTE: ("·", "dim"), WARNING: ("!", "bold yellow"), FAULT: ("✗", "bold red")}
SIDE = 224  # px, of the pictures that are timed
LOW_DISK = 5.0  # GB

SOFTWARE_GL = (
    "a CPU draws: pictures of MuJoCo environments take tens of times longer than on a GPU. With an NVIDIA GPU, install "
    "its EGL driver (libnvidia-gl of the driver's version; in a container run with NVIDIA_DRIVER_CAPABILITIES=all), "
    "set MUJOCO_GL=egl, and run swm doctor again. Without one, small pictures, quality='fast' and worker processes "
    "help most"
)


@dataclass(frozen=True)
class Finding:
    """What was looked at, how it is, and what to do about it."""

    subject: str
    status: str  # ok, note, warning or fault
    found: str
    advice: str = ""


def doctor(
    quick: Annotated[bool, typer.Option("--quick", help="Measure nothing.")] = False, as_json: JsonOption = False
) -> None:
    """Look at this machine: packages, devices, GL, disk, speed. Exit status 1 if something is broken."""
    findings = [finding for check in _CHECKS for finding in check(quick)]
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        _print(findings)
    if any(finding.status == FAULT for finding in findings):
        raise typer.Exit(1)


def _print(findings: list[Finding]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=False, box=None, padding=(0, 1), pad_edge=False)
    for finding in findings:
        mark, style = _MARKS[finding.status]
        table.add_row(Text(mark, style=style), finding.subject, finding.found)
        if finding.advice:
            table.add_row("", "", Text(finding.advice, style=style))
    Console(highlight=False, markup=False).print(table)


# ---------------------------------------------------------------------- software
def _python(quick: bool) -> Iterator[Finding]:
    from stable_worldmodel import __version__

    name = f"stable_worldmodel {__version__}, Python {platform.python_version()}, {platform.platform()}"
    yield Finding("library", OK, name)


def _packages(quick: bool) -> Iterator[Finding]:
    """Optional packages by the extra that installs them."""
    from stable_worldmodel.errors import EXTRAS

    extras: dict[str, list[str]] = {}
    for package, extra in EXTRAS.items():
        extras.setdefault(extra, []).append(package)
    for extra, packages in sorted(extras.items()):
        missing = [name for name in packages if importlib.util.find_spec(name) is None]
        advice = f"pip install 'stable-worldmodel[{extra}]'" if missing else ""
        found = f"without {', '.join(missing)}" if missing else ", ".join(packages)
        yield Finding(f"extra {extra}", NOTE if missing else OK, found, advice)


def _torch(quick: bool) -> Iterator[Finding]:
    if importlib.util.find_spec("torch") is None:
        return
    import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        yield Finding("torch", OK, f"{torch.__version__} on {', '.join(names)}")
    else:
        threads = torch.get_num_threads()
        yield Finding("torch", NOTE, f"{torch.__version__} on the CPU, {threads} threads; no CUDA device")


# ---------------------------------------------------------------------- machine
def _cpu(quick: bool) -> Iterator[Finding]:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    busy = load > usable
    advice = "other processes keep the cores busy, so speeds below and elsewhere are too low" if busy else ""
    yield Finding("processor", WARNING if busy else OK, f"{usable} cores, load {load:.1f}", advice)


def _disk(quick: bool) -> Iterator[Finding]:
    from stable_worldmodel.utils.files import cache_root

    root = cache_root()
    there = next(folder for folder in (root, *root.parents) if folder.exists())
    free = shutil.disk_usage(there).free / 1e9
    if not there.is_dir() or not os.access(there, os.W_OK):
        yield Finding("data root", FAULT, f"{root} cannot be written", "set STABLEWM_HOME to a folder that can")
        return
    low = free < LOW_DISK
    advice = "set STABLEWM_HOME to a larger disk" if low else ""
    yield Finding("data root", WARNING if low else OK, f"{root}, {free:.0f} GB free", advice)
    if not quick:
        speed = _write_speed(there)
        yield Finding("disk", OK, f"{speed:.0f} MB/s written and synced")


def _write_speed(folder: Path, megabytes: int = 64) -> float:
    block = os.urandom(1 << 20)
    with tempfile.TemporaryFile(dir=folder) as file:
        begun = time.perf_counter()
        for _ in range(megabytes):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
        return megabytes * 1.048576 / (time.perf_counter() - begun)


# ---------------------------------------------------------------------- pictures
def _gl(quick: bool) -> Iterator[Finding]:
    if importlib.util.find_spec("mujoco") is None:
        return
    from stable_worldmodel.envs.mujoco import backend

    try:
        found = backend()
    except RuntimeError as error:
        yield Finding("GL", FAULT, "nothing can draw MuJoCo environments", str(error))
        return
    text = f"{found.name}: {found.renderer} ({found.vendor}), OpenGL {found.version}"
    yield Finding("GL", WARNING if found.software else OK, text, SOFTWARE_GL if found.software else "")


def _speed(quick: bool) -> Iterator[Finding]:
    """Steps with a picture of a small scene of each kind."""
    if quick:
        return
    for env_id, package in (("swm/PushT-v1", "pymunk"), ("swm/ReacherDMControl-v0", "dm_control")):
        if importlib.util.find_spec(package) is not None:
            yield Finding(env_id, OK, f"{_frames_per_second(env_id):.0f} steps/s with a picture of {SIDE} px")


def _frames_per_second(env_id: str, seconds: float = 1.0) -> float:
    import gymnasium as gym

    import stable_worldmodel.envs  # noqa: F401  registers the ids

    env = gym.make(env_id, render_mode="rgb_array", disable_env_checker=True)
    try:
        env.reset(seed=0)
        unwrapped: Any = env.unwrapped
        unwrapped.render_shape = (SIDE, SIDE)
        env.action_space.seed(0)
        unwrapped.render()
        begun, frames = time.perf_counter(), 0
        while time.perf_counter() - begun < seconds:
            _, _, terminated, truncated, _ = env.step(env.action_space.sample())
            unwrapped.render()
            frames += 1
            if terminated or truncated:
                env.reset()
        return frames / (time.perf_counter() - begun)
    finally:
        env.close()


def _video(quick: bool) -> Iterator[Finding]:
    if importlib.util.find_spec("av") is None:
        return
    import av

    missing = [name for name in ("libx264",) if name not in av.codecs_available]
    if missing:
        yield Finding("video", FAULT, f"PyAV lacks {', '.join(missing)}", "pip install --force-reinstall av")
    else:
        yield Finding("video", OK, f"PyAV {av.__version__} with libx264")


def _terminal(quick: bool) -> Iterator[Finding]:
    if sys.stderr.isatty() and not os.environ.get("TERM"):
        yield Finding("terminal", NOTE, "TERM is not set: progress is shown as lines")


_CHECKS: tuple[Callable[[bool], Iterator[Finding]], ...] = (
    _python,
    _packages,
    _cpu,
    _torch,
    _gl,
    _video,
    _disk,
    _speed,
    _terminal,
)
