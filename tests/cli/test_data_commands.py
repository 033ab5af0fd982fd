"""`swm verify`, `convert`, `merge` and `preview` through the real application."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from stable_worldmodel.cli import app
from stable_worldmodel.data import load_dataset, open_writer


def swm(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def write(path: Path, lengths: tuple[int, ...]) -> Path:
    with open_writer(path) as writer:
        for rows in lengths:
            shades = np.arange(rows, dtype=np.uint8)[:, None, None, None] * 10
            writer.write_episode(
                {
                    "pixels": np.broadcast_to(shades, (rows, 16, 16, 3)).copy(),
                    "pixels.top": np.full((rows, 16, 16, 3), 200, np.uint8),
                    "action": np.zeros((rows, 2), np.float32),
                }
            )
    return path


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return write(tmp_path / "home" / "walks.h5", (3, 5, 4))


def test_datasets_are_listed_under_the_names_that_load(dataset: Path) -> None:
    with open_writer(dataset.parent / "datasets" / "frames", format="folder") as writer:
        writer.write_episodes(load_dataset("walks").iter_episodes())
    listed = json.loads(swm("datasets", "--json").stdout)
    assert [(row["name"], row["format"]) for row in listed] == [("frames", "folder"), ("walks", "hdf5")]
    assert all(row["bytes"] > 1000 for row in listed)
    assert [json.loads(swm("inspect", row["name"], "--json").stdout)["rows"] for row in listed] == [12, 12]


def test_verify_says_that_a_dataset_is_whole(dataset: Path) -> None:
    done = swm("verify", "walks", "--deep")
    assert done.exit_code == 0
    assert "3 episodes, 12 rows, checksums of 3: no faults" in done.output
    assert json.loads(swm("verify", "walks", "--json").stdout)["ok"]


def test_verify_finds_damage_and_repairs_it(dataset: Path) -> None:
    data = bytearray(dataset.read_bytes())
    frame = np.full((16, 16, 3), 20, np.uint8).tobytes()
    place = data.rindex(frame)  # row 2 of the last episode
    data[place] ^= 255
    dataset.write_bytes(data)
    done = swm("verify", "walks", "--deep")
    assert done.exit_code == 1
    assert "1 faults" in done.output
    assert swm("verify", "walks", "--deep", "--repair").exit_code == 0
    assert load_dataset("walks").num_episodes == 2
    assert swm("verify", "walks", "--deep").exit_code == 0


def test_convert_and_merge_write_datasets_that_load(dataset: Path, tmp_path: Path) -> None:
    write(tmp_path / "home" / "more.h5", (6,))
    done = swm("convert", "walks", tmp_path / "copy", "-f", "hdf5")
    assert done.exit_code == 0, done.output
    assert load_dataset(tmp_path / "copy").lengths.tolist() == [3, 5, 4]
    again = swm("convert", "walks", tmp_path / "copy", "-f", "hdf5")
    assert again.exit_code == 1
    done = swm("merge", "walks", "more", "-o", tmp_path / "both")
    assert done.exit_code == 0, done.output
    assert load_dataset(tmp_path / "both").lengths.tolist() == [3, 5, 4, 6]
    assert swm("merge", "walks", "more", "-o", tmp_path / "both").exit_code == 1
    assert swm("merge", "walks", "more", "-o", tmp_path / "both", "--overwrite").exit_code == 0
    assert load_dataset(tmp_path / "both").num_episodes == 4


def test_preview_shows_the_views_of_chosen_episodes_side_by_side(dataset: Path, tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    done = swm("preview", "walks", "--episodes", "0,2", "-o", tmp_path / "videos")
    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in (tmp_path / "videos").iterdir()) == ["ep0.mp4", "ep2.mp4"]
    with av.open(str(tmp_path / "videos" / "ep2.mp4")) as video:
        frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    assert len(frames) == 4
    middle = frames[3].shape[1] // 2
    left, right = frames[3][60:, : middle - 4], frames[3][60:, middle + 4 :]
    assert abs(left.astype(int) - 30).max() < 12
    assert abs(right.astype(int) - 200).max() < 12


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["preview", "walks", "--key", "depth"], "no image columns ['depth']"),
        (["preview", "walks", "--episodes", "0,9"], "no episodes [9]"),
        (["preview", "walks", "--episodes", "one"], "expected numbers"),
        (["verify", "nothing"], "was not found"),
        (["convert", "walks", "x", "-f", "papyrus"], "papyrus"),
        (
            ["bench", "loading", "walks", "--num-steps", "1", "--frameskip", "1", "--columns", "depth"],
            "no column 'depth'",
        ),
    ],
)
def test_wrong_arguments_end_with_one_clear_line(dataset: Path, arguments: list[str], message: str) -> None:
    done = swm(*arguments)
    assert done.exit_code == 1
    assert message in done.output
    assert "Traceback" not in done.output
