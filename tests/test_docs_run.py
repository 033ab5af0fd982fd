"""Every code block of README and docs runs, in the order of its page, in an empty folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from pages import PAGES, REPOSITORY, blocks, given

# Pages that take more than a few seconds.
SLOW = {
    "README.md",
    "docs/environments/ogbench.md",
    "docs/evaluation.md",
    "docs/formats.md",
    "docs/models/lewm.md",
    "docs/planning.md",
    "docs/planning_playground.md",
    "docs/planning_solvers.md",
    "docs/quickstart.md",
    "docs/report.md",
    "docs/scaling.md",
    "docs/training.md",
}
NAMES = [
    str(page.relative_to(REPOSITORY))
    for page in PAGES
    if any(block.runs and block.language in ("python", "sh") for block in blocks(page))
]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in NAMES], ids=NAMES
)
def test_page_runs(name: str, tmp_path: Path, prepared: Callable[[str], Path]) -> None:
    page = REPOSITORY / name
    folder = tmp_path / "work"
    folder.mkdir()
    for item in given(page):
        place(prepared(item), folder)
    done = execute([sys.executable, REPOSITORY / "tests" / "pages.py", page], folder, seconds=900)
    assert done.returncode == 0, f"{name}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Makes what pages assume, once: a folder whose content goes into the working directory."""
    folder = tmp_path_factory.mktemp("given")
    made: dict[str, Path] = {}

    def get(name: str) -> Path:
        if name not in made:
            made[name] = target = folder / name.replace("/", "_")
            target.mkdir()
            code, inputs = RECIPES[name]
            for item in inputs:
                place(get(item), target)
            done = execute([sys.executable, "-c", code], target, seconds=900)
            assert done.returncode == 0, done.stderr
        return made[name]

    return get


_TRAIN = """
import stable_worldmodel as swm
from stable_worldmodel.train import TrainConfig, train
config = TrainConfig.preset("debug", {model!r}, epochs=1)
dataset = swm.load_dataset("rooms.h5", num_steps=config.num_steps, frameskip=config.frameskip)
train(config, dataset, "runs/{model}")
"""
_COLLECT = """
import stable_worldmodel as swm
from stable_worldmodel.envs.two_room import ExpertPolicy
with swm.World("swm/TwoRoom-v1", num_envs=8, image_shape=(64, 64)) as world:
    world.set_policy(ExpertPolicy(action_noise=2.0, seed=0))
    world.collect("rooms.h5", episodes=40, seed=0)
"""
_QUICKSTART = """
from pathlib import Path
from stable_worldmodel.quickstart import QuickstartConfig, run
sizes = dict(episodes=40, epochs=1, pairs=6, samples=16, iterations=2, elites=4, videos=2)
run(QuickstartConfig.preset("tiny", out=Path("runs/quickstart"), **sizes))
"""
# Name → the program that makes it in the working directory, and what it needs there.
RECIPES: dict[str, tuple[str, tuple[str, ...]]] = {
    "rooms.h5": (_COLLECT, ()),
    "runs/lewm": (_TRAIN.format(model="lewm"), ("rooms.h5",)),
    "runs/pldm": (_TRAIN.format(model="pldm"), ("rooms.h5",)),
    "runs/quickstart": (_QUICKSTART, ()),
}


def place(source: Path, folder: Path) -> None:
    """Copy the content of a folder, without what is there already."""
    shutil.copytree(source, folder, dirs_exist_ok=True)


def execute(command: list[object], folder: Path, seconds: float) -> subprocess.CompletedProcess[str]:
    """Run a program in a folder, with a home and a data root of its own and without a network's help."""
    home = folder / "home"
    home.mkdir(exist_ok=True)
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(home),
        "STABLEWM_HOME": str(home / "data"),
        "HF_HUB_OFFLINE": "1",
        "MPLBACKEND": "Agg",
        "OMP_NUM_THREADS": "1",
    }
    words = [str(word) for word in command]
    return subprocess.run(
        words, cwd=folder, env=environment, capture_output=True, text=True, timeout=seconds, check=False
    )
