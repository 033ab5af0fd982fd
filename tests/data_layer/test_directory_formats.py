"""What the directory formats tell the rest of the package, and how their files behave under it."""

import numpy as np
import pytest
from directory_episodes import FORMATS, assert_close, make_views

from stable_worldmodel.data import convert, get_format, load_dataset, open_writer, verify
from stable_worldmodel.data.catalog import delete_dataset
from stable_worldmodel.data.formats.directory import writer as directory_writer
from stable_worldmodel.data.formats.directory.row_log import log_path
from stable_worldmodel.data.formats.shared.disk import copy_tree
from stable_worldmodel.data.journal import journal_path
from stable_worldmodel.errors import ContractError


@pytest.fixture(params=FORMATS)
def format(request):
    return request.param


@pytest.fixture
def path(tmp_path):
    return tmp_path / "set"


def write(path, format, episodes, **columns):
    with open_writer(path, format) as writer:
        writer.write_episodes({**make_views(k), **columns} for k in episodes)


def files(folder):
    return {file.relative_to(folder): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_side_files_are_all_there_is_beside_a_dataset(path, format):
    with open_writer(path, format) as writer:
        writer.write_episodes(make_views(k) for k in range(3))
        beside = {entry for entry in path.parent.iterdir() if entry != path}
        assert {log_path(path), journal_path(path)} <= beside
        assert beside <= {*get_format(format).side_files(path)}


def test_a_deleted_dataset_leaves_nothing(tmp_path, format, monkeypatch):
    monkeypatch.setenv("STABLEWM_HOME", str(tmp_path))
    path = tmp_path / "datasets" / "set"
    path.parent.mkdir()
    with open_writer(path, format) as writer:
        writer.write_episodes(make_views(k) for k in range(3))
        log = log_path(path).read_bytes()
    log_path(path).write_bytes(log)  # as a killed writer leaves it
    assert delete_dataset("set")
    assert list(path.parent.iterdir()) == []


def test_a_copy_in_the_same_format_is_not_encoded_again(path, format, tmp_path):
    assert get_format(format).reencodes_images
    write(path, format, range(3))
    copy = convert(path, tmp_path / "copy", dest_format=format, progress=False)
    assert files(path) == files(copy)
    assert load_dataset(copy).metadata == load_dataset(path).metadata
    assert verify(copy, deep=True).checked == 3


def test_links_stay_links_in_a_copied_tree(path, tmp_path):
    write(path, "folder", range(1))
    copy_tree(path, tmp_path / "copy")
    assert files(path) == files(tmp_path / "copy")
    numbers = {file.stat().st_ino for file in (tmp_path / "copy" / "goal").iterdir()}
    assert len(numbers) == 1
    assert numbers.isdisjoint({file.stat().st_ino for file in (path / "goal").iterdir()})


def test_an_image_that_cannot_be_encoded_leaves_no_trace_of_its_episode(path, format, monkeypatch):
    write(path, format, range(2))
    before = files(path)
    with open_writer(path, format) as writer:
        original = writer._write_frames

        def fail_after_pixels(target, i, name, values):
            sums = original(target, i, name, values)
            if name == "pixels":
                raise ContractError("no more")
            return sums

        monkeypatch.setattr(writer, "_write_frames", fail_after_pixels)
        with pytest.raises(ContractError, match="no more"):
            writer.write_episode(make_views(2))
        assert files(path) == before
        monkeypatch.undo()
        writer.write_episode(make_views(2))
    assert verify(path, deep=True).checked == 3


def test_the_table_is_not_written_anew_for_every_64_mib(path, format, monkeypatch):
    monkeypatch.setattr(directory_writer, "LOG_BYTES", 1000)
    index = path / ("state.json" if format == "hf_arrow" else "ep_len.npz")
    folds = set()
    with open_writer(path, format) as writer:
        for k in range(64):
            writer.write_episode({"x": np.full((4, 100), k)})
            folds.add(index.stat().st_mtime_ns)
    assert load_dataset(path).get_col_data("x")[::4, 0].tolist() == list(range(64))
    assert len(folds) <= (64 if format == "hf_arrow" else 8)  # whose tables of 50 episodes are small


@pytest.mark.parametrize("damage", ["cut", "zeroed"])
def test_an_image_without_its_seal_is_not_decoded(path, format, damage):
    write(path, format, range(2))
    file = {"folder": "pixels/ep_1_step_3.jpeg", "video": "pixels/ep_1.mp4", "hf_arrow": "img/1/3_pixels.jpeg"}[format]
    data = (path / file).read_bytes()
    cut = {"cut": data[:-8], "zeroed": data[:-60] + bytes(60)}[damage]
    (path / file).write_bytes(cut)
    with pytest.raises(ContractError, match="its checksum is missing"):
        load_dataset(path, cache="none").read_rows(1, 0, 4)
    assert_close(
        load_dataset(path, cache="none").read_rows(0, 0, 4), {k: v[:4] for k, v in make_views(0).items()}, format
    )


@pytest.mark.parametrize("format", ["folder", "video"], indirect=True)
@pytest.mark.parametrize("column", ["reward", "pixels"])
def test_a_recorded_column_that_is_gone_is_missed(path, format, column):
    write(path, format, range(2))
    gone = path / (f"{column}.npz" if column == "reward" else column)
    gone.rename(path.parent / "away")
    with pytest.raises(ContractError, match=rf"columns \['{column}'\] were recorded and are not there"):
        load_dataset(path)
    with pytest.raises(ContractError, match="nothing can be added without them"):
        open_writer(path, format)
    (path.parent / "away").rename(gone)
    for k, episode in enumerate(load_dataset(path).iter_episodes()):
        assert_close(episode, make_views(k), format)


@pytest.mark.parametrize("format", ["folder", "video"], indirect=True)
def test_a_missing_first_image_is_named(path, format):
    write(path, format, range(2))
    file = path / ("pixels/ep_0_step_0.jpeg" if format == "folder" else "pixels/ep_0.mp4")
    file.unlink()
    with pytest.raises(ContractError, match=rf"{file.name} \(episode 0, row 0\): is missing"):
        load_dataset(path)
