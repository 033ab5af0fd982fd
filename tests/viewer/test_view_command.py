"""`swm view` as a process, and what a user can do wrong with it."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import urllib.request
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from stable_worldmodel.data import load_dataset


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "stable_worldmodel.cli", "view", *map(str, arguments)]


def swm(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), capture_output=True, text=True, check=False, timeout=60)


def test_the_command_says_where_it_is_and_ends_on_interrupt(run: Path) -> None:
    with subprocess.Popen(
        command(run, "--no-browser"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert url.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(f"{url}api/sources", timeout=20) as answer:
            assert [source["name"] for source in json.load(answer)["sources"]] == ["dataset", "random"]
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (0, "")


@pytest.mark.slow
def test_wrong_arguments_are_one_paragraph(run: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        cases = {
            ("absent",): "'absent' was not found",
            (tmp_path / "empty",): "no format recognises it",
            (run, "--port", port, "--no-browser"): f"port {port} cannot be used",
            (run, "--save", "x.rrd"): "--episode and --save belong to --rerun",
            (run, "--port", 70000): "--port",
            (run, "--episode", -1): "--episode",
        }
        for arguments, message in cases.items():
            done = swm(*arguments)
            assert done.returncode in (1, 2), arguments
            assert message in done.stderr
            assert "Traceback" not in done.stderr


@pytest.mark.skipif(find_spec("rerun") is not None, reason="rerun-sdk is installed")
def test_rerun_that_is_not_installed_is_named_with_its_extra(run: Path) -> None:
    done = swm(run, "--rerun")
    assert done.returncode == 1
    assert "stable-worldmodel[view]" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(find_spec("rerun") is None, reason="rerun-sdk is not installed")
def test_rerun_writes_an_episode(run: Path, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "episode.rrd"
    done = swm(run, "--rerun", "--episode", 2, "--save", path)
    assert done.returncode == 0, done.stderr
    stored = load_dataset(run / "dataset.h5").load_episode(2)
    recorded = read_rrd(path)
    rows = len(stored["step_idx"])
    assert {"/images/pixels", "/images/goal", "/columns/action", "/columns/reward"} <= recorded.keys()
    assert all(sorted(values) == list(range(rows)) for values in recorded.values())
    for t in range(rows):
        np.testing.assert_array_equal(recorded["/images/pixels"][t], stored["pixels"][t].ravel())
        np.testing.assert_allclose(recorded["/columns/action"][t], stored["action"][t].ravel())
    assert "no episode 99" in swm(run, "--rerun", "--episode", 99, "--save", tmp_path / "e.rrd").stderr


def read_rrd(path: Path) -> dict[str, dict[int, np.ndarray]]:
    """What a recording holds: entity -> row -> numbers, of columns as they are and of images as bytes."""
    reader = pytest.importorskip("rerun.chunk").RrdReader(path)
    found: dict[str, dict[int, np.ndarray]] = {}
    for chunk in reader.stream():
        batch = chunk.to_record_batch()
        column = next((name for name in batch.schema.names if name in ("Image:buffer", "Scalars:scalars")), None)
        if column is not None:
            for t, values in zip(batch.column("row").to_pylist(), batch.column(column).to_pylist(), strict=True):
                found.setdefault(chunk.entity_path, {})[t] = np.ravel(values)
    return found
