"""Whatever is typed, `swm` ends with a result or one message: status 0, 1 or 2, and never a traceback."""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stable_worldmodel.cli import app, main

_HUB = re.compile(r"[\w.-]+/[\w.-]+|.*(://|lerobot:).*", re.DOTALL)  # what would be looked up on the network

# Command -> words that work, from the folder that `folder` fills.
COMMANDS = {
    "collect": ["TwoRoom-v1", "collision=swept", "--policy", "expert", "-p", "action_noise=0.1"],
    "train": ["dummy", "data=rooms.h5", "batch_size=4", "lr=0.1", "out=other"],
    "eval": ["run", "random", "--dataset", "rooms.h5", "--goal-offset", "1"],
    "plan": ["run", "--dataset", "rooms.h5", "--horizon", "2"],
    "report": ["results", "--title", "x", "-o", "report.html"],
    "datasets": ["--json"],
    "inspect": ["rooms.h5"],
    "verify": ["rooms.h5", "--deep"],
    "convert": ["rooms.h5", "copy", "-f", "folder", "--mode", "overwrite"],
    "merge": ["rooms.h5", "rooms.h5", "-o", "both.h5", "--mode", "overwrite"],
    "preview": ["rooms.h5", "--episodes", "0", "--key", "pixels", "-o", "previews"],
    "envs": ["--json"],
    "fovs": ["TwoRoom-v1"],
    "checkpoints": ["run"],
    "list": ["dataset"],
    "show": ["dataset", "--all"],
    "delete": ["model", "nothing", "--yes"],
    "doctor": [],
    "bench rollout": ["TwoRoom-v1", "--image-size", "16"],
    "bench loading": ["rooms.h5", "--num-steps", "2", "--frameskip", "1"],
    "bench planning": ["--plan", "horizon=2"],
    "lerobot export-env": ["two_room", "--out", "hub", "--overwrite"],
    "view": ["rooms.h5", "--episode", "0"],
    "quickstart": ["--seed", "1"],
}
# Words that are left alone, at the end: they keep the work small.
KEPT = {
    "collect": ["--episodes", "1", "--max-steps", "2", "--num-envs", "1"],
    "train": ["preset=debug", "max_steps=1"],
    "eval": ["--episodes", "1", "--budget", "2", "--num-envs", "2", "--solver", "n_steps=1", "--solver", "topk=1"],
    "plan": ["--pairs", "1", "--budget", "2", "--iterations", "1", "--samples", "4", "--elites", "2"],
    "doctor": ["--quick"],
    "bench rollout": ["--seconds", "0.1", "--num-envs", "1", "--max-steps", "2"],
    "bench loading": ["--seconds", "0.1"],
    "bench planning": ["--decisions", "1", "--solver", "num_samples=4", "--solver", "n_steps=1", "--solver", "topk=2"],
    "view": ["--rerun", "--save", "walk.rrd"],
    "quickstart": ["--out", "rooms.h5"],  # which is no folder, so that nothing is trained
}
ENDS_EARLY = ("quickstart", "delete")
NAMES = [
    "",
    "-",
    "--",
    ".",
    "..",
    "/",
    "~",
    "rooms.h5",
    "rooms",
    "run",
    "TwoRoom-v1",
    "all",
    "none",
    "random",
    "a,b",
    "0:0",
]
NUMBERS = ["0", "-1", "1", "3", "1.5", "nan", "inf", "-inf", "1e999", "9" * 30, "0x1", "\u0661"]
KEYS = [
    "data",
    "preset",
    "out",
    "lr",
    "seed",
    "model.latent_dim",
    "env",
    "type",
    "topk",
    "horizon",
    "collision",
    "obs_type",
]


def plain_text() -> st.SearchStrategy[str]:
    """What a shell can hand over: no NUL; undecodable bytes are surrogates."""
    characters = st.characters(exclude_characters="\0", exclude_categories=["Cs"]) | st.just("\udc80")
    return st.text(characters, max_size=8)


def values() -> st.SearchStrategy[str]:
    simple = st.sampled_from([*NAMES, *NUMBERS]) | plain_text() | st.integers(-3, 40).map(str) | st.floats().map(str)
    pairs = st.tuples(st.sampled_from(KEYS), simple | st.sampled_from(["[1,2]", "{}", "()", "'x", "None"]))
    return (simple | pairs.map("=".join)).filter(lambda word: not _HUB.fullmatch(word))


def options_of(command: str) -> list[str]:
    group = typer.main.get_command(app)
    for name in command.split():
        group = group.commands[name]
    found = [name for parameter in group.params for name in parameter.opts if name.startswith("-")]
    # These open windows, ask for long runs, or reach beyond the folder.
    return [name for name in found if name not in ("--open", "--grid", "--cluster", "--workers")]


@st.composite
def broken_words(draw: st.DrawFn, command: str) -> list[str]:
    """Words that work, a few of which are replaced, left out, or joined by others."""
    words = list(COMMANDS[command])
    options = options_of(command)
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(words)))
        change = draw(st.sampled_from(["replace", "drop", "insert", "option"]))
        if change == "option" and options:
            words += [draw(st.sampled_from(options)), draw(values())]
        elif change == "insert":
            words.insert(place, draw(values()))
        elif place < len(words):
            words[place : place + 1] = [draw(values())] if change == "replace" else []
    return [*words, *KEPT.get(command, [])]


def run(words: list[str]) -> tuple[int, str]:
    """Status and standard error of `swm WORDS`, through its entry point."""
    before, sys.argv = sys.argv, ["swm", *words]
    error = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="backslashreplace")  # as the interpreter sets it up
    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="surrogateescape")
    try:
        with contextlib.redirect_stderr(error), contextlib.redirect_stdout(out), pytest.raises(SystemExit) as ended:
            main()
    finally:
        sys.argv = before
    error.flush()
    status = ended.value.code
    return (status if isinstance(status, int) else int(status is not None)), error.buffer.getvalue().decode()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small dataset, a model trained on it, and results."""
    folder = tmp_path_factory.mktemp("typed")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("STABLEWM_HOME", str(folder / "home"))
        for words in (
            ["collect", "TwoRoom-v1", "--policy", "expert", "--episodes", "6", "-o", "rooms.h5"],
            ["train", "lewm", "data=rooms.h5", "preset=debug", "max_steps=1", "out=run"],
            ["eval", "random", "--dataset", "rooms.h5", "--episodes", "2", "--budget", "2", "-o", "results"],
        ):
            status, error = run(words)
            assert status == 0, error
    return folder


@pytest.mark.parametrize("command", COMMANDS)
def test_words_that_work_work(command: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the test below would break what is broken."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("STABLEWM_HOME", str(folder / "home"))
    status, error = run([*command.split(), *COMMANDS[command], *KEPT.get(command, [])])
    if command in ENDS_EARLY:
        assert status in (1, 2)
        return
    if command == "view":
        pytest.importorskip("rerun")
    assert status == 0, error


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_no_words_end_in_a_traceback(command: str, data: st.DataObject, folder: Path) -> None:
    words = [*command.split(), *data.draw(broken_words(command))]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("STABLEWM_HOME", str(folder / "home"))
        status, error = run(words)
    assert status in (0, 1, 2), words
    assert "Traceback" not in error, words
    if status == 1 and command not in ("verify", "doctor"):
        assert "error: " in error or "Aborted" in error, words


@pytest.mark.parametrize(
    "words",
    [
        ["collect", "TwoRoom-v1", "foo=1"],
        ["collect", "TwoRoom-v1", "verbose=3"],
        ["train", "lewm", "data=rooms.h5", "batch_size=many"],
        ["eval", "\udc80"],
        ["report", "rooms.h5"],
        ["bench", "rollout", "TwoRoom-v1", "--num-envs", "0"],
    ],
)
def test_processes_do_not_either(words: list[str], folder: Path) -> None:
    command = [sys.executable, "-m", "stable_worldmodel.cli", *words]
    environment = {**os.environ, "STABLEWM_HOME": str(folder / "home")}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode in (1, 2)
    assert "Traceback" not in done.stderr
    assert done.stderr.strip()
