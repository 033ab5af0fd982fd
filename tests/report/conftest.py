"""A report of made-up values, with hostile text and real videos."""

from __future__ import annotations

import math
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pytest

from stable_worldmodel.report import Comparison, DatasetCard, Evaluation, HeatMap, RunReport, Video
from stable_worldmodel.report.model import Cell

HOSTILE = "<script>alert('x')</script> & \"quotes\""


def write_mp4(path: Path, frames: int = 12) -> Path:
    """A moving square, 96 x 48 pixels, 15 frames per second."""
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=15, options={"threads": "1"})
        stream.width, stream.height, stream.pix_fmt = 96, 48, "yuv420p"
        for i in range(frames):
            image = np.full((48, 96, 3), 230, np.uint8)
            image[16:32, 4 * i : 4 * i + 16] = (200, 30, 30)
            # Converted by the encoder, equal frames give files of different sizes.
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image).reformat(format="yuv420p")))
        container.mux(stream.encode())
    return path


@pytest.fixture
def report(tmp_path: Path) -> RunReport:
    history = [{"step": s, "train/loss": math.exp(-s / 20), "train/$odd$": 1.0 + s % 3} for s in range(100)]
    for row in history[::10]:
        row["val/loss"] = row["train/loss"] * 1.1
    return RunReport(
        title=f"Quickstart {HOSTILE}",
        comparisons=[Comparison.from_counts("world model", 91, 100), Comparison.from_counts("random", 0, 100)],
        protocol=f"100 held-out pairs {HOSTILE}",
        history=history,
        evaluations=[
            Evaluation(
                "world model",
                successes=[True, False],
                caption=HOSTILE,
                metrics=[("env steps", "12.5", "10 to 15", "2")],
                seeds=[7, 8],
                videos=[
                    Video(write_mp4(tmp_path / f"{i}.mp4"), label=f"pair {i}", success=i == 0, caption=HOSTILE)
                    for i in (0, 1)
                ],
                plan_seconds=[0.2, 0.1, 0.4],
                plan_costs=[[3.0, 2.0, 1.5], [4.0, 1.0, 0.5]],
            )
        ],
        heat_maps=[
            HeatMap(
                "toy/Walk-v0",
                checkpoints=["small", HOSTILE],
                factors=["default", "agent.color"],
                cells={("default", "small"): Cell(Comparison.from_counts("small", 45, 50), seeds=2)},
            )
        ],
        dataset=DatasetCard(HOSTILE, episodes=300, steps=21345, size=43_234_567, columns=[("pixels", "uint8 image")]),
        timings={"collect": 12.34, "train": 312.0},
        command=f"swm quickstart --out {HOSTILE}",
        seeds={"collect": 0},
        config={"model": {HOSTILE: 192}, "epochs": 3},
        versions={"python": "3.11.7"},
        git_revision=None,
        created=datetime(2026, 1, 2, 3, 4, tzinfo=timezone.utc),
    )
