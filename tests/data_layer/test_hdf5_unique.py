"""Goal images are stored once for all rows in sequence that show them, and read as a column of every row."""

import pickle
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from episode_factory import assert_same_datasets, assert_same_episode, hdf5_datasets, make_goal_episode
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from stable_worldmodel.data import HDF5Writer, load_dataset, verify
from stable_worldmodel.data.formats.hdf5 import format as hdf5
from stable_worldmodel.data.formats.hdf5.columns import split_frames
from stable_worldmodel.data.journal import journal_path, read_journal
from stable_worldmodel.errors import ContractError

EPISODES = [make_goal_episode(k) for k in range(7)]


def write(path, episodes, **options):
    with HDF5Writer(path, **options) as writer:
        writer.write_episodes(episodes)
    return path


def shapes(path):
    with h5py.File(path, "r") as file:
        return {name: dataset.shape for name, dataset in hdf5_datasets(file).items()}


def assert_holds(path, episodes):
    for found, expected in zip(load_dataset(path).iter_episodes(), episodes, strict=True):
        assert_same_episode(found, expected)


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    """The same episodes with each goal stored once, and row by row."""
    folder = tmp_path_factory.mktemp("unique")
    return write(folder / "unique.h5", EPISODES), write(folder / "rows.h5", EPISODES, unique_columns=())


@pytest.fixture
def path(tmp_path):
    return tmp_path / "set.h5"


# -- layout ------------------------------------------------------------------------------------------------------------


def test_plain_h5py_sees_the_documented_layout(paths):
    with h5py.File(paths[0], "r") as file:
        frames, row = file["goal/frames"], file["goal/row"]
        assert (frames.chunks, frames.maxshape[0], frames.compression) == ((1, 16, 16, 3), None, None)
        assert (row.shape, row.dtype, row.maxshape) == (file["pixels"].shape[:1], np.int64, (None,))
        changes = [(e["goal"][1:] != e["goal"][:-1]).any(axis=(1, 2, 3)).sum() for e in EPISODES]
        assert len(frames) == len(EPISODES) + sum(changes)
        np.testing.assert_array_equal(frames[:][row[:]], np.concatenate([e["goal"] for e in EPISODES]))
        assert set(file) == {*EPISODES[0], "ep_len", "ep_offset"}


def test_an_episode_never_shows_the_frame_of_another(paths):
    with h5py.File(paths[0], "r") as file:
        row, last = file["goal/row"][:], np.cumsum(file["ep_len"][:])[:-1] - 1
    assert (row[last + 1] == row[last] + 1).all()
    assert np.array_equal(EPISODES[0]["goal"][-1], EPISODES[1]["goal"][0])


def test_every_column_can_be_stored_row_by_row(paths):
    with h5py.File(paths[1], "r") as file:
        assert all(isinstance(item, h5py.Dataset) for item in file.values())
        assert len(file["goal"]) == len(file["pixels"])


@pytest.mark.parametrize(
    ("options", "unique"),
    [
        ({}, {"goal", "goal.top", "goal_side"}),
        ({"unique_columns": ["goal.*", "map"]}, {"goal.top", "map"}),
        ({"unique_columns": ()}, set()),
    ],
)
def test_names_and_patterns_choose_among_the_image_columns(path, options, unique):
    image = np.zeros((4, 8, 8, 3), np.uint8)
    images = dict.fromkeys(["goal", "goal.top", "goal_side", "goals", "map", "pixels"], image)
    write(path, [{**images, "goal_state": np.zeros((4, 2))}], **options)
    with h5py.File(path, "r") as file:
        assert {name for name in file if isinstance(file[name], h5py.Group)} == unique
        assert all(len(file[name]["frames"]) == 1 for name in unique)
    np.testing.assert_array_equal(load_dataset(path).read_rows(0, 0, 4, ["goal"])["goal"], image)


@pytest.mark.parametrize("wrong", ["goal", [1]])
def test_unique_columns_must_be_names(path, wrong):
    with pytest.raises(ContractError, match="expected names or patterns"):
        HDF5Writer(path, unique_columns=wrong)


@pytest.mark.parametrize("created", [{}, {"unique_columns": ()}])
@pytest.mark.parametrize("continued", [{}, {"unique_columns": ()}])
def test_append_goes_on_in_the_layout_of_the_file(path, tmp_path, created, continued):
    write(path, EPISODES, **created)
    other = write(tmp_path / "other.h5", EPISODES[:2], **created)
    for episode in EPISODES[2:]:
        write(other, [episode], **continued)
    assert_same_datasets(path, other)


def test_overwrite_chooses_the_layout_anew(path):
    write(path, EPISODES[:2])
    write(path, EPISODES[:2], mode="overwrite", unique_columns=())
    assert "goal" in shapes(path)
    assert_holds(path, EPISODES[:2])


def test_groups_that_are_no_column_are_left_alone(path, caplog):
    write(path, EPISODES[:1])
    with h5py.File(path, "r+") as file:
        file.create_group("notes")["frames"] = np.zeros((3, 2))
    ds = load_dataset(path)
    assert "notes" not in ds.column_names
    assert "'notes' is not a column" in caplog.text
    write(path, EPISODES[1:])
    assert_holds(path, EPISODES)


# -- reading -----------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=6), elements=st.integers(0, 2)))
def test_frames_without_repetitions_give_the_rows_back(values):
    frames, row = split_frames(values, first=5)
    np.testing.assert_array_equal(frames[row - 5], values)
    assert not any(map(np.array_equal, frames, frames[1:]))


def assert_equal_items(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(found[name], value, rtol=0, atol=0, equal_nan=True)
        else:
            assert np.array_equal(found[name], value, equal_nan=np.asarray(value).dtype.kind == "f"), name


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"cache": "none"},
        {"cache": "decoded"},
        {"keys_to_cache": ["goal"]},
        {"keys_to_load": ["goal"]},
        {"keys_to_load": ["action"]},
    ],
)
def test_every_way_of_reading_gives_what_row_by_row_storage_gives(paths, options):
    unique, rows = (load_dataset(path, num_steps=3, frameskip=2, **options) for path in paths)
    assert (unique.columns, unique.column_names) == (rows.columns, rows.column_names)
    assert unique.get_dim("goal") == 16 * 16 * 3
    for _ in range(2):  # the second time from memory, where there is a cache
        for windows in ([5, 0, len(rows) - 1, 5], np.arange(len(rows)), []):
            assert_equal_items(unique.get_batch(windows), rows.get_batch(windows))
        assert_equal_items(unique.get_batch([1, 2], out=unique.get_batch([7, 9])), rows.get_batch([1, 2]))
    assert_equal_items(unique[3], rows[3])
    assert_equal_items(unique.load_episode(2), rows.load_episode(2))
    assert_equal_items(unique.load_chunk([2], 1, 5)[0], rows.load_chunk([2], 1, 5)[0])
    assert_equal_items(unique.get_row_data([7, 3, 7]), rows.get_row_data([7, 3, 7]))
    assert_equal_items(unique.read_rows(1, 2, 5, ["goal", "reward"]), rows.read_rows(1, 2, 5, ["goal", "reward"]))
    frames = [np.concatenate(list(ds.iter_frames("goal"))) for ds in (unique, rows)]
    np.testing.assert_array_equal(*frames)
    assert_equal_items(pickle.loads(pickle.dumps(unique))[4], rows[4])


def test_iterated_episodes_are_those_written(paths):
    for path in paths:
        assert_holds(path, EPISODES)


def test_only_distinct_frames_are_held_in_memory(paths, monkeypatch):
    # Too little for all rows, enough for the frames.
    frames = shapes(paths[0])["goal/frames"][0]
    monkeypatch.setattr(hdf5, "available_memory", lambda: 2 * frames * 16 * 16 * 3)
    options = {"cache": "decoded", "keys_to_load": ["goal"]}
    unique = load_dataset(paths[0], **options)
    np.testing.assert_array_equal(unique.read_rows(2, 0, 5)["goal"], EPISODES[2]["goal"][:5])
    with pytest.raises(ContractError, match="use cache='none'"):
        load_dataset(paths[1], **options)


def test_remote_file_reads_the_same(paths):
    fsspec = pytest.importorskip("fsspec")
    with fsspec.open("memory://bucket/unique.h5", "wb") as file:
        file.write(paths[0].read_bytes())
    for cache in ("none", "auto"):
        remote = load_dataset("memory://bucket/unique.h5", num_steps=2, cache=cache)
        assert_equal_items(remote.get_batch([3, 60]), load_dataset(paths[1], num_steps=2).get_batch([3, 60]))


@pytest.mark.parametrize("storage", [{}, {"chunks": True, "compression": "gzip"}])
def test_other_chunks_and_filters_are_read_too(paths, tmp_path, storage):
    with h5py.File(paths[0]) as source, h5py.File(tmp_path / "copy.h5", "w") as copied:
        for name, dataset in hdf5_datasets(source).items():
            dtype = np.int32 if name == "goal/row" else dataset.dtype
            copied.create_dataset(name, data=dataset[:], dtype=dtype, **storage)
    for cache in ("none", "auto"):
        ds = load_dataset(tmp_path / "copy.h5", num_steps=2, cache=cache)
        assert_equal_items(ds.get_batch([3, 60]), load_dataset(paths[1], num_steps=2).get_batch([3, 60]))


def test_frames_in_any_order_are_read_and_checked(paths, path):
    write(path, EPISODES)
    with h5py.File(path, "r+") as file:  # as another program may arrange them
        frames, row = file["goal/frames"], file["goal/row"]
        frames[:], row[:] = frames[:][::-1], len(frames) - 1 - row[:]
    assert_holds(path, EPISODES)
    assert verify(path, deep=True).ok
    write(path, EPISODES[:2])
    assert_holds(path, [*EPISODES, *EPISODES[:2]])


def test_group_that_cannot_grow_is_named(paths, tmp_path):
    with h5py.File(paths[0]) as source, h5py.File(tmp_path / "copy.h5", "w", libver="latest") as copied:
        for name, dataset in hdf5_datasets(source).items():
            maxshape = dataset.shape if name == "goal/row" else dataset.maxshape
            copied.create_dataset(name, data=dataset[:], dtype=dataset.dtype, maxshape=maxshape)
    with pytest.raises(ContractError, match=r"cannot be appended to:\n  goal/row: not resizable\n"):
        HDF5Writer(tmp_path / "copy.h5")


# -- interruptions -----------------------------------------------------------------------------------------------------


@contextmanager
def interrupted(at):
    """Ctrl-C comes with the `at`-th time that a dataset is flushed; the list holds those flushed so far."""
    flushed = []
    flush = h5py.Dataset.flush

    def flush_or_raise(dataset):
        flushed.append(dataset.name)
        if len(flushed) == at:
            raise KeyboardInterrupt
        flush(dataset)

    h5py.Dataset.flush = flush_or_raise
    try:
        yield flushed
    except KeyboardInterrupt:
        pass
    finally:
        h5py.Dataset.flush = flush


@pytest.mark.parametrize("first", range(3))
@pytest.mark.parametrize("reopen", [False, True])
def test_a_commit_interrupted_anywhere_changes_nothing(tmp_path, first, reopen):
    before, broken, after = EPISODES[first : first + 2], EPISODES[first + 2], EPISODES[first + 3 : first + 5]
    whole = write(tmp_path / "whole.h5", [*before, *after])
    last = len(shapes(whole))  # each dataset is flushed once
    for at in range(1, last + 1):
        target = tmp_path / f"{at}.h5"
        with HDF5Writer(target) as writer:
            writer.write_episodes(before)
            with interrupted(at) as flushed:
                writer.write_episode(broken)
            assert len(flushed) == at
            assert (flushed[-1] == "/ep_len") == (at == last)
            if not reopen:
                writer.write_episodes(after)
        if reopen:
            assert_holds(target, before)
            assert verify(target, deep=True).ok
            write(target, after)
        assert_same_datasets(target, whole)


def test_frames_and_rows_of_no_episode_are_cut_when_reopened(path, tmp_path):
    write(path, EPISODES[:4])
    with h5py.File(path, "r+") as file:  # as a writer killed before the commit leaves it
        file["goal/frames"].resize(len(file["goal/frames"]) + 3, axis=0)
        file["goal/row"].resize(len(file["goal/row"]) + 5, axis=0)
        file["goal/row"][-5:] = len(file["goal/frames"]) - 1
    assert_holds(path, EPISODES[:4])
    faults = verify(path).faults
    assert [fault.split(":")[0] for fault in faults] == ["column 'goal/frames'", "column 'goal/row'"]
    write(path, EPISODES[4:])
    assert_same_datasets(path, write(tmp_path / "whole.h5", EPISODES))


def test_full_disk_leaves_what_was_acknowledged(path, tmp_path):
    code = (
        "import os, resource\n"
        "from episode_factory import make_goal_episode\n"
        "from stable_worldmodel.data import HDF5Writer\n"
        f"writer = HDF5Writer({str(path)!r})\n"
        "writer.write_episode({'goal': make_goal_episode(0)['goal']})\n"
        f"size = os.path.getsize({str(path)!r})\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100000, resource.RLIM_INFINITY))\n"
        "for k in range(1, 500):\n"
        "    writer.write_episode({'goal': make_goal_episode(k)['goal']})\n"
        "    print(k, flush=True)\n"
    )
    here = Path(__file__).parent
    result = subprocess.run([sys.executable, "-c", code], cwd=here, capture_output=True, text=True, check=False)
    assert "File too large" in result.stderr
    stored = 1 + len(result.stdout.split())
    episodes = [{"goal": make_goal_episode(k)["goal"]} for k in range(stored + 1)]
    assert_holds(path, episodes[:stored])
    write(path, episodes[stored:])
    assert_same_datasets(path, write(tmp_path / "whole.h5", episodes))


# -- checking ----------------------------------------------------------------------------------------------------------


def damage(path, name, index, value):
    with h5py.File(path, "r+") as file:
        file[name][index] = value


def assert_repaired(path, kept, tmp_path):
    report = verify(path, deep=True, repair=True)
    assert (report.ok, report.repaired_to) == (False, kept)
    assert verify(path, deep=True).ok
    write(path, EPISODES[kept:])
    assert verify(path, deep=True).checked == len(EPISODES)
    assert_same_datasets(path, write(tmp_path / "whole.h5", EPISODES))


def test_sound_file_has_no_faults_and_checksums_of_its_rows(paths):
    reports = [verify(path, deep=True) for path in paths]
    assert all(report.ok for report in reports)
    assert reports[0].checked == len(EPISODES)
    records = [[record for record, _ in read_journal(journal_path(path))] for path in paths]
    sums = [[record["crc32"] for record in journal if record["kind"] == "episode"] for journal in records]
    assert sums[0] == sums[1]


def test_journal_lost_with_the_last_episode_is_written_again(path):
    write(path, EPISODES)
    complete = journal_path(path).read_bytes()
    journal_path(path).write_bytes(complete[:-20])
    write(path, [])
    assert journal_path(path).read_bytes() == complete


def test_changed_frame_is_found_when_looking_deep(path, tmp_path):
    write(path, EPISODES)
    damage(path, "goal/frames", 1 + len(EPISODES[1]["goal"]), np.uint8(7))  # after those of the first two episodes
    assert verify(path).ok
    assert verify(path, deep=True).faults == ["episode 2: differs from what was recorded, in ['goal']"]
    assert_repaired(path, 2, tmp_path)


def test_row_that_shows_another_frame_is_found_when_looking_deep(path, tmp_path):
    write(path, EPISODES)
    damage(path, "goal/row", load_dataset(path).offsets[3] + 1, 0)
    assert verify(path, deep=True).faults == ["episode 3: differs from what was recorded, in ['goal']"]
    assert_repaired(path, 3, tmp_path)


@pytest.mark.parametrize("value", [-1, 10**9])
def test_row_that_shows_no_stored_frame_is_found_and_not_read(path, tmp_path, value, caplog):
    write(path, EPISODES)
    damage(path, "goal/row", load_dataset(path).offsets[4] + 2, value)
    assert verify(path).faults[0].startswith("column 'goal':")
    with pytest.raises(ContractError, match=r"\['goal'\] that its journal describes cannot be read"):
        load_dataset(path)
    assert "'goal' is not a column" in caplog.text
    with pytest.raises(ContractError, match=r"'goal'.* are shorter"):
        HDF5Writer(path)
    assert_repaired(path, 4, tmp_path)


def test_missing_frames_are_found_and_cut_off(path, tmp_path):
    write(path, EPISODES)
    with h5py.File(path, "r+") as file:
        file["goal/frames"].resize(len(file["goal/frames"]) - 1, axis=0)
    assert verify(path).faults[0].startswith("column 'goal':")
    assert_repaired(path, len(EPISODES) - 1, tmp_path)
