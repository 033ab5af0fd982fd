"""Datasets of this library beside LeRobot's, both ways. `lerobot.sh` runs it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lerobot_setup  # noqa: F401 - before LeRobot
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

# isort: split
from lerobot.datasets.compute_stats import compute_episode_stats
from lerobot.datasets.lerobot_dataset import LeRobotDataset

from stable_worldmodel.data import convert, load_dataset, open_writer, verify

LENGTHS = (9, 14, 6)
FPS = 10
H, W = 64, 96
# Our column -> LeRobot's feature.
NAMES = {
    "proprio": "observation.state",
    "state": "observation.environment_state",
    "grid": "observation.grid",
    "count": "observation.count",
    "flag": "observation.flag",
    "action": "action",
    "variation.mass": "variation.mass",
}
ARRIVAL = {name: f"next.{name}" for name in ("reward", "success", "terminated", "truncated")}
IMAGES = {"pixels": "observation.image", "pixels_wrist": "observation.images.wrist"}
VIDEO_ERROR = 0.03  # mean difference of [0, 1] pictures, ours decoded against the original


def frames(rng: np.random.Generator, rows: int, height: int = H, width: int = W) -> np.ndarray:
    """Smooth pictures (rows, height, width, 3) that change from row to row."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    phase = rng.uniform(0, 6, 3) + np.arange(rows)[:, None] / 4
    waves = np.sin(3 * x[None, ..., None] + 2 * y[None, ..., None] + phase[:, None, None, :])
    return (127.5 + 100 * waves).astype(np.uint8)


def episode(k: int, rows: int) -> dict[str, np.ndarray]:
    """An episode as World collects it: no action at its last row, reward and flags on arrival."""
    rng = np.random.default_rng(k)
    action = rng.normal(size=(rows, 2)).astype(np.float32)
    action[-1] = np.nan
    reward = rng.normal(size=rows)
    reward[0] = np.nan
    last = np.arange(rows) == rows - 1
    return {
        "pixels": frames(rng, rows),
        "pixels_wrist": frames(rng, rows, 48, 64),
        "proprio": rng.normal(size=(rows, 4)).astype(np.float32),
        "state": rng.normal(size=(rows, 3)),
        "grid": rng.normal(size=(rows, 2, 3)).astype(np.float32),
        "count": rng.integers(-5, 5, (rows, 2)),
        "flag": rng.random(rows) < 0.5,
        "action": action,
        "variation.mass": np.full((rows, 1), rng.random(), np.float32),
        "reward": reward,
        "terminated": last,
        "truncated": np.zeros(rows, bool),
        "success": last & (k % 2 == 0),
        "task": np.array([f"do {k % 2}"] * rows, object),
    }


EPISODES = [episode(k, rows) for k, rows in enumerate(LENGTHS)]


@pytest.fixture(scope="module", params=["videos", "stills", "steps only"])
def written(request, tmp_path_factory) -> tuple[Path, list[dict[str, np.ndarray]]]:
    """A dataset of ours, and the rows that LeRobot should find in it."""
    path = tmp_path_factory.mktemp("ours") / "set"
    keep_last = request.param != "steps only"
    with open_writer(path, "lerobot", fps=FPS, use_videos=request.param != "stills", keep_last=keep_last) as writer:
        writer.write_episodes(EPISODES)
    return path, [{name: values[: len(values) - (not keep_last)] for name, values in e.items()} for e in EPISODES]


def as_numpy(value) -> np.ndarray:
    return value.numpy() if torch.is_tensor(value) else np.asarray(value)


def column_of(dataset, feature: str, rows: range) -> np.ndarray:
    return np.stack([as_numpy(dataset[i][feature]) for i in rows])


def test_lerobot_finds_our_episodes_and_tasks(written) -> None:
    path, expected = written
    theirs, mine = LeRobotDataset("us/set", root=path), load_dataset(path)
    lengths = [len(e["flag"]) for e in expected]
    assert (theirs.num_episodes, theirs.num_frames, theirs.fps) == (3, sum(lengths), FPS)
    assert mine.lengths.tolist() == lengths
    ends = np.cumsum(lengths)
    for k, row in enumerate(theirs.meta.episodes):
        assert (row["dataset_from_index"], row["dataset_to_index"]) == (ends[k] - lengths[k], ends[k])
        assert (row["length"], row["tasks"]) == (lengths[k], [f"do {k % 2}"])
    texts = [theirs[i]["task"] for i in range(len(theirs))]
    assert texts == [text for e in expected for text in e["task"]]


def test_lerobot_reads_every_column_as_it_was_written(written) -> None:
    path, expected = written
    theirs, mine = LeRobotDataset("us/set", root=path), load_dataset(path)
    items = [theirs[i] for i in range(len(theirs))]
    steps = np.concatenate([np.arange(len(e["flag"])) for e in expected])
    counters = {"frame_index": steps, "index": np.arange(len(steps)), "timestamp": (steps / FPS).astype(np.float32)}
    counters["episode_index"] = np.repeat(np.arange(3), [len(e["flag"]) for e in expected])
    seen = {"task", "task_index", "is_terminal_obs", "next.done", *counters}
    for feature, values in counters.items():
        np.testing.assert_array_equal([as_numpy(item[feature]) for item in items], values)
    for name, feature in NAMES.items():
        found = np.stack([as_numpy(item[feature]) for item in items])
        values = np.concatenate([e[name] for e in expected])
        rows = np.isfinite(values.reshape(len(values), -1).astype(float)).all(axis=1)  # of the last one nothing is said
        told = values[rows].astype(found.dtype)  # it gives float64 as float32
        np.testing.assert_array_equal(found[rows].reshape(told.shape), told, err_msg=name)
        seen.add(feature)
    done = np.array([bool(item["next.done"]) for item in items])
    start = 0
    for k, whole in enumerate(EPISODES):
        steps_taken = LENGTHS[k] - 1
        rows = range(start, start + steps_taken)
        for name, feature in ARRIVAL.items():
            found = np.array([as_numpy(items[i][feature]).ravel()[0] for i in rows])
            np.testing.assert_array_equal(found, whole[name][1:].astype(found.dtype), err_msg=name)
        assert np.flatnonzero(done[start : start + len(expected[k]["flag"])]).tolist() == [steps_taken - 1]
        start += len(expected[k]["flag"])
    seen |= {*ARRIVAL.values(), *IMAGES.values()}
    assert {key for key in items[0] if key not in seen} == set()
    is_still = theirs.features["observation.image"]["dtype"] == "image"
    for name, feature in IMAGES.items():
        found = np.stack([as_numpy(item[feature]) for item in items]).transpose(0, 2, 3, 1)  # (rows, H, W, C)
        decoded = np.concatenate(list(mine.iter_frames(name)))
        assert found.dtype == np.float32
        assert np.abs(found - decoded / 255).max() <= 1.01 / 255, name  # the same file, each its own decoder
        original = np.concatenate([e[name] for e in expected]) / 255
        assert np.abs(found - original).mean() < (1e-6 if is_still else VIDEO_ERROR)


def test_lerobots_windows_are_ours(written) -> None:
    path, expected = written
    deltas = {"observation.state": [-0.2, 0.0, 0.1], "action": [0.0, 0.1, 0.2]}
    theirs = LeRobotDataset("us/set", root=path, delta_timestamps=deltas)
    start = 0
    for e in expected:
        rows = len(e["flag"])
        for t in range(rows):
            item = theirs[start + t]
            for feature, seconds in deltas.items():
                wanted = t + np.round(np.array(seconds) * FPS).astype(int)
                outside = (wanted < 0) | (wanted >= rows)
                assert item[f"{feature}_is_pad"].tolist() == outside.tolist()
                if feature == "observation.state":
                    np.testing.assert_array_equal(item[feature], e["proprio"][wanted.clip(0, rows - 1)])
        start += rows
    mine = load_dataset(path, num_steps=3)
    whole = LeRobotDataset("us/set", root=path, delta_timestamps={"observation.state": [0.0, 0.1, 0.2]})
    starts = [i for i in range(len(whole)) if not whole[i]["observation.state_is_pad"].any()]
    assert len(mine) == len(starts)
    for k in (0, 3, len(mine) - 1):
        np.testing.assert_array_equal(mine[k]["proprio"], whole[starts[k]]["observation.state"])


def test_lerobot_opens_a_part_of_ours(written) -> None:
    path, expected = written
    part = LeRobotDataset("us/set", root=path, episodes=[1])
    assert (part.num_episodes, len(part)) == (1, len(expected[1]["flag"]))
    np.testing.assert_array_equal(part[2]["observation.state"], expected[1]["proprio"][2])
    np.testing.assert_array_equal(as_numpy(part[0]["index"]), len(expected[0]["flag"]))


def numeric(dataset: LeRobotDataset) -> list[str]:
    return [name for name, f in dataset.features.items() if f["dtype"] not in ("video", "image", "string")]


def as_lerobot_has_it(stats: dict[str, Any], stat: str) -> np.ndarray:
    """A statistic of ours with one axis: LeRobot takes features of several axes for many vectors of their last one."""
    value = np.asarray(stats[stat], float)
    if value.ndim < 2 or stat == "count":
        return value
    lead = tuple(range(value.ndim - 1))
    if stat == "std":
        mean = np.asarray(stats["mean"], float)
        return np.sqrt((value**2 + mean**2).mean(lead) - mean.mean(lead) ** 2)
    return {"min": np.min, "max": np.max, "mean": np.mean}[stat](value, lead)


def test_statistics_are_what_lerobot_computes(written) -> None:
    path, expected = written
    theirs = LeRobotDataset("us/set", root=path)
    told = [
        row for file in sorted((path / "meta/episodes").rglob("*.parquet")) for row in pq.read_table(file).to_pylist()
    ]
    start = 0
    for row, e in zip(told, expected, strict=True):
        n = len(e["flag"])
        items = [theirs[i] for i in range(start, start + n)]
        start += n
        data = {name: np.stack([as_numpy(item[name]) for item in items]) for name in numeric(theirs)}
        data = {name: values.reshape(n, *theirs.features[name]["shape"]) for name, values in data.items()}
        computed = compute_episode_stats(data, {name: theirs.features[name] for name in data})
        for name, stats in computed.items():
            mine = {stat: row[f"stats/{name}/{stat}"] for stat in ("min", "max", "mean", "std", "count")}
            for stat in mine:
                found = as_lerobot_has_it(mine, stat).ravel()
                wanted = np.asarray(stats[stat], float).ravel()
                np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5, err_msg=f"{name} {stat}")
        for name, feature in IMAGES.items():
            for c in range(3):
                channel = np.concatenate([frame[..., c].ravel() for frame in e[name]]) / 255
                assert abs(np.ravel(row[f"stats/{feature}/mean"])[c] - channel.mean()) < VIDEO_ERROR
                assert abs(np.ravel(row[f"stats/{feature}/std"])[c] - channel.std()) < VIDEO_ERROR


def test_lerobot_has_the_statistics_of_the_whole_set(written) -> None:
    path, _ = written
    theirs = LeRobotDataset("us/set", root=path)
    stored = json.loads((path / "meta" / "stats.json").read_text())
    assert stored.keys() == theirs.meta.stats.keys() == {*numeric(theirs), *IMAGES.values()}
    for name, stats in stored.items():
        for stat, value in stats.items():
            np.testing.assert_array_equal(np.asarray(theirs.meta.stats[name][stat]), np.asarray(value))


# ---------------------------------------------------------------------- theirs
FEATURES = {
    "observation.state": {"dtype": "float32", "shape": (4,), "names": None},
    "observation.environment_state": {"dtype": "float64", "shape": (3,), "names": None},
    "observation.grid": {"dtype": "float32", "shape": (2, 3), "names": None},
    "observation.count": {"dtype": "int64", "shape": (2,), "names": None},
    "action": {"dtype": "float32", "shape": (2,), "names": ["x", "y"]},
    "next.reward": {"dtype": "float32", "shape": (1,), "names": None},
    "next.done": {"dtype": "bool", "shape": (1,), "names": None},
}
STEPS = {"observation.state": "proprio", "observation.environment_state": "state", "observation.grid": "grid"}
STEPS |= {"observation.count": "count", "action": "action"}


@pytest.fixture(scope="module", params=["video", "image"])
def recorded(request, tmp_path_factory) -> tuple[Path, str]:
    """A dataset that LeRobot wrote of the steps of EPISODES."""
    path = tmp_path_factory.mktemp("theirs") / "set"
    kind = request.param
    images = {
        feature: {"dtype": kind, "shape": EPISODES[0][name].shape[1:], "names": ["height", "width", "channels"]}
        for name, feature in IMAGES.items()
    }
    dataset = LeRobotDataset.create("them/set", FPS, {**FEATURES, **images}, root=path, use_videos=kind == "video")
    for e in EPISODES:
        for t in range(len(e["flag"]) - 1):
            frame = {feature: e[name][t] for feature, name in STEPS.items()}
            frame |= {feature: e[name][t] for name, feature in IMAGES.items()}
            frame["next.reward"] = np.array([e["reward"][t + 1]], np.float32)
            frame["next.done"] = np.array([t == len(e["flag"]) - 2])
            dataset.add_frame({**frame, "task": str(e["task"][t])})
        dataset.save_episode()
    dataset.finalize()
    return path, kind


def check_recorded(path: Path, kind: str) -> None:
    mine, theirs = load_dataset(path), LeRobotDataset("them/set", root=path)
    assert mine.lengths.tolist() == [rows - 1 for rows in LENGTHS]
    assert mine.num_rows == theirs.num_frames
    for k, e in enumerate(EPISODES):
        rows = mine.read_rows(k, 0, LENGTHS[k] - 1)
        for name in STEPS.values():
            np.testing.assert_array_equal(rows[name], e[name][:-1], err_msg=name)
        np.testing.assert_array_equal(rows["next.reward"].ravel(), e["reward"][1:].astype(np.float32))
        np.testing.assert_array_equal(rows["reward"][1:].ravel(), e["reward"][1:-1].astype(np.float32))
        assert rows["next.done"].ravel().tolist() == [False] * (LENGTHS[k] - 2) + [True]
        assert set(rows["task"]) == {f"do {k % 2}"}
        for name, feature in IMAGES.items():
            read = column_of(theirs, feature, range(mine.offsets[k], mine.offsets[k] + LENGTHS[k] - 1))
            difference = np.abs(rows[name] / 255 - read.transpose(0, 2, 3, 1))
            assert difference.max() <= 1.01 / 255
            assert np.abs(rows[name] / 255 - e[name][:-1] / 255).mean() < (1e-6 if kind == "image" else VIDEO_ERROR)


def test_we_read_what_lerobot_wrote(recorded) -> None:
    path, kind = recorded
    check_recorded(path, kind)
    report = verify(path, deep=True)
    assert report.ok, report
    assert load_dataset(path).has_terminal_row is False


@pytest.mark.parametrize("recorded", ["image"], indirect=True)  # a second video would be another picture
def test_lerobots_set_survives_other_formats_and_is_read_again(recorded, tmp_path) -> None:
    path, _ = recorded
    convert(path, tmp_path / "set.h5")
    convert(tmp_path / "set.h5", tmp_path / "back", dest_format="lerobot", use_videos=False, keep_last=False, fps=FPS)
    theirs, back = LeRobotDataset("a/b", root=path), LeRobotDataset("a/b", root=tmp_path / "back")
    assert len(back) == len(theirs)
    for i in range(len(theirs)):
        for feature in (*STEPS, *IMAGES.values(), "timestamp", "frame_index", "episode_index", "index"):
            np.testing.assert_array_equal(back[i][feature], theirs[i][feature], err_msg=feature)
        assert back[i]["task"] == theirs[i]["task"]


def test_statistics_of_lerobots_set_are_ours(recorded) -> None:
    path, _ = recorded
    theirs, mine = LeRobotDataset("them/set", root=path), load_dataset(path)
    for feature, name in STEPS.items():
        values = mine.get_col_data(name).astype(float)
        values = values.reshape(-1, values.shape[-1])
        for stat, wanted in {
            "min": values.min(0), "max": values.max(0), "mean": values.mean(0), "std": values.std(0),
        }.items():  # fmt: skip
            np.testing.assert_allclose(np.asarray(theirs.meta.stats[feature][stat]), wanted, rtol=1e-4, atol=1e-6)
