"""What the writers of the directory formats put on disk, accept, refuse and promise."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from directory_episodes import FORMATS, assert_close, make_views

from stable_worldmodel.data import DatasetLockedError, detect_format, load_dataset, open_writer
from stable_worldmodel.data.journal import journal_path, read_journal
from stable_worldmodel.errors import ContractError

HERE = Path(__file__).parent


@pytest.fixture(params=FORMATS)
def format(request):
    return request.param


@pytest.fixture
def path(tmp_path):
    return tmp_path / "set"


def write(path, format, episodes, **options):
    with open_writer(path, format, **options) as writer:
        writer.write_episodes(make_views(k) for k in episodes)


def assert_holds(path, format, episodes):
    found = list(load_dataset(path).iter_episodes())
    assert len(found) == len(episodes)
    for episode, k in zip(found, episodes, strict=True):
        assert_close(episode, make_views(k), format)


def entries(folder):
    return sorted(entry.name for entry in folder.iterdir())


def snapshot(folder):
    return {file.relative_to(folder): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_round_trip_and_lists_equal_arrays(path, format):
    with open_writer(path, format) as writer:
        for k in range(3):
            writer.write_episode({name: list(values) for name, values in make_views(k).items()})
    assert detect_format(path).name == format
    assert_holds(path, format, range(3))


def test_windows_have_the_shapes_and_dtypes_of_every_format(path, format, tmp_path):
    write(path, format, range(3))
    write(tmp_path / "set.h5", "hdf5", range(3))
    ours, reference = (load_dataset(p, num_steps=3, frameskip=2) for p in (path, tmp_path / "set.h5"))
    assert ours.column_names == reference.column_names
    windows = [0, len(ours) - 1, 5, 5]
    batch, expected = ours.get_batch(windows), reference.get_batch(windows)
    for name, values in expected.items():
        if isinstance(values, list):
            assert batch[name] == values
        else:
            assert (batch[name].shape, batch[name].dtype) == (values.shape, values.dtype), name
            if name not in ("pixels", "goal"):
                np.testing.assert_array_equal(batch[name], values)


@pytest.mark.parametrize("cache", ["none", "decoded"])
def test_batches_equal_rows_however_they_are_read(path, format, cache):
    write(path, format, range(4))
    ds = load_dataset(path, num_steps=2, frameskip=3, cache=cache, keys_to_load=["pixels", "goal", "reward"])
    windows = np.random.default_rng(0).integers(0, len(ds), 20)
    batch = ds.get_batch(windows)
    for i, (episode, start) in enumerate(ds.clip_indices[int(w)] for w in windows):
        rows = ds.read_rows(episode, start, start + 4)
        for name in ("pixels", "goal"):
            np.testing.assert_array_equal(batch[name][i].movedim(-3, -1), rows[name][::3])
    memory = {name: values.data_ptr() for name, values in batch.items()}
    again = ds.get_batch(windows[::-1].copy(), out=batch)
    assert {name: values.data_ptr() for name, values in again.items()} == memory
    np.testing.assert_array_equal(again["pixels"][0], ds[int(windows[-1])]["pixels"])


def test_reader_can_be_pickled(path, format):
    import pickle

    write(path, format, range(2))
    ds = load_dataset(path, cache="none")
    copy = pickle.loads(pickle.dumps(ds))
    np.testing.assert_array_equal(copy[3]["pixels"], ds[3]["pixels"])
    assert copy[3]["policy"] == ds[3]["policy"]


def test_forked_child_reads_too(path, format):
    write(path, format, range(2))
    ds = load_dataset(path, cache="none")
    expected = int(ds[3]["pixels"].sum())
    child = os.fork()
    if child == 0:
        os._exit(int(ds[3]["pixels"].sum()) != expected)
    assert os.waitpid(child, 0)[1] == 0


def test_append_continues(path, format):
    write(path, format, range(2))
    with open_writer(path, format, mode="append") as writer:
        assert writer.num_episodes == 2
        writer.write_episode(make_views(2))
        assert writer.num_episodes == 3
    assert_holds(path, format, range(3))
    with open_writer(path) as writer:  # the format is seen from what is there
        assert writer.num_episodes == 3


def test_equal_episodes_give_equal_files_in_one_or_many_sessions(path, format, tmp_path):
    write(path, format, range(5))
    for k in range(5):
        write(tmp_path / "other", format, [k])
    one, many = snapshot(path), snapshot(tmp_path / "other")
    assert one.keys() == many.keys()
    assert {str(name) for name in one if one[name] != many[name]} <= {"ep_len.npz", "state.json"}


def test_error_mode_refuses_an_existing_dataset_and_touches_nothing(path, format):
    write(path, format, range(1), mode="error")
    before = snapshot(path.parent)
    with pytest.raises(FileExistsError, match="choose another path"):
        open_writer(path, format, mode="error")
    assert snapshot(path.parent) == before


def test_overwrite_swaps_on_success_and_shows_the_old_set_until_then(path, format):
    write(path, format, range(3), metadata={"run": "old"})
    with open_writer(path, format, mode="overwrite", metadata={"run": "new"}) as writer:
        writer.write_episode(make_views(7))
        assert_holds(path, format, range(3))
    assert_holds(path, format, [7])
    assert load_dataset(path).metadata == {"run": "new"}
    assert entries(path.parent) == ["set", "set.journal"]


def test_overwrite_keeps_the_old_set_after_an_exception(path, format, caplog):
    def stream():
        yield make_views(7)
        raise ZeroDivisionError

    write(path, format, range(3))
    with pytest.raises(ZeroDivisionError), open_writer(path, format, mode="overwrite") as writer:
        writer.write_episodes(stream())
    assert_holds(path, format, range(3))
    assert "was not replaced; the 1 new episodes are in" in caplog.text
    write(path, format, [3])  # the next writer cleans up
    assert entries(path.parent) == ["set", "set.journal"]


def test_exception_keeps_complete_episodes_and_propagates(path, format):
    def stream():
        yield make_views(0)
        yield make_views(1)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), open_writer(path, format) as writer:
        writer.write_episodes(stream())
    assert_holds(path, format, range(2))


def test_writer_without_episodes_leaves_what_was_there(path, format):
    write(path, format, [])
    assert entries(path.parent) == []
    write(path, format, range(2))
    write(path, format, [], mode="overwrite")
    assert_holds(path, format, range(2))


def test_second_writer_is_refused_until_the_first_closes(path, format):
    with open_writer(path, format) as writer:
        writer.write_episode(make_views(0))
        with pytest.raises(DatasetLockedError, match=f'"pid": {os.getpid()}'):
            open_writer(path, format)
    write(path, format, [1])
    assert_holds(path, format, range(2))


def test_closed_writer_says_so(path, format):
    writer = open_writer(path, format)
    writer.write_episode(make_views(0))
    writer.close()
    writer.close()
    with pytest.raises(RuntimeError, match="writer is closed"):
        writer.write_episode(make_views(1))


@pytest.mark.parametrize("other", ["a file", "another directory", "another format"])
def test_what_is_not_a_dataset_of_the_format_is_left_alone(path, format, other):
    if other == "a file":
        path.write_text("mine")
    elif other == "another directory":
        path.mkdir()
        (path / "thesis.txt").write_text("mine")
    else:
        write(path, next(name for name in FORMATS if name != format), range(1))
    before = snapshot(path.parent)
    for mode in ("append", "overwrite"):
        with pytest.raises(ContractError, match=f"exists and is not a '{format}' dataset"):
            open_writer(path, format, mode=mode)
    with pytest.raises(FileExistsError):
        open_writer(path, format, mode="error")
    assert snapshot(path.parent) == before


def test_an_empty_directory_is_filled(path, format):
    path.mkdir()
    write(path, format, range(2))
    assert_holds(path, format, range(2))


def changed(**changes):
    episode = {**make_views(5), **changes}
    return {name: values for name, values in episode.items() if values is not None}


@pytest.mark.parametrize(
    ("episode", "message"),
    [
        (changed(reward=None), "reward: missing"),
        (changed(pixels=None), "pixels: missing"),
        (changed(extra=np.zeros(len(make_views(5)["reward"]))), "extra: not in the dataset"),
        (changed(reward=np.zeros(3)), "equal lengths"),
        (changed(pixels=make_views(5, side=16)["pixels"]), r"pixels: expected shape \(32, 32, 3\).*found \(16"),
        (changed(seed=make_views(5)["reward"]), "seed: expected int64, found float64"),
        (changed(policy=["x\0"] * len(make_views(5)["reward"])), "ends with a NUL"),
        (changed(policy=["\ud800"] * len(make_views(5)["reward"])), "not valid Unicode"),
        (changed(ep_len=[1]), "reserved"),
        ({}, "at least one column"),
    ],
)
def test_bad_episode_is_refused_before_anything_is_written(path, format, episode, message):
    write(path, format, range(2))
    before = snapshot(path)
    with open_writer(path, format) as writer, pytest.raises(ContractError, match=message):
        writer.write_episode(episode)
    assert snapshot(path) == before
    write(path, format, [2])
    assert_holds(path, format, range(3))


@pytest.mark.parametrize("name", ["a\0b", ".hidden", "x" * 201])
def test_names_that_cannot_be_files_are_refused(path, format, name):
    for values in (np.zeros(3), np.zeros((3, 8, 8, 3), np.uint8)):
        with open_writer(path, format) as writer, pytest.raises(ContractError, match="cannot be the name of a file"):
            writer.write_episode({name: values})
    assert entries(path.parent) == []


def test_names_cannot_leave_the_directory(path, format):
    with open_writer(path, format) as writer:
        with pytest.raises(ContractError, match="non-empty string"):
            writer.write_episode({"..": np.zeros(3)})
        with pytest.raises(ContractError, match="cannot be the name"):
            writer.write_episode({"../x": np.zeros((3, 8, 8, 3), np.uint8)})
        writer.write_episode({"a/../x": np.zeros((3, 8, 8, 3), np.uint8)})
    assert sorted(load_dataset(path).column_names) == ["a_.._x"]
    assert entries(path.parent) == ["set", "set.journal"]


def test_objects_are_dropped_with_one_warning(path, format, caplog):
    with open_writer(path, format) as writer, caplog.at_level(logging.WARNING):
        writer.write_episodes([{"a": [1, 2], "_hidden": [1, 2], "obj": [object()] * 2, "ep_idx": [0, 0]}] * 3)
    assert load_dataset(path).column_names == ["a"]
    assert len(caplog.records) == 2


def test_journal_describes_every_episode(path, format):
    write(path, format, range(2), metadata={"env": "swm/PushT-v1", "seed": np.int64(3)})
    write(path, format, [2])
    (header, *episodes) = [record for record, _ in read_journal(journal_path(path))]
    assert header["metadata"] == {"env": "swm/PushT-v1", "seed": 3}
    assert header["columns"]["pixels"] == {"dtype": "uint8", "shape": [32, 32, 3]}
    assert [record["i"] for record in episodes] == [0, 1, 2]
    assert [record["len"] for record in episodes] == load_dataset(path).lengths.tolist()
    assert [record["seed"] for record in episodes] == [1000, 1001, 1002]
    assert set(episodes[0]["crc32"]) == set(make_views(0))


def test_journal_that_lost_lines_is_completed_from_the_files(path, format):
    write(path, format, range(4))
    complete = journal_path(path).read_bytes()
    journal_path(path).write_bytes(b"".join(complete.splitlines(keepends=True)[:3])[:-5])
    write(path, format, [])
    assert journal_path(path).read_bytes() == complete


def test_metadata_of_the_first_session_stays(path, format, caplog):
    write(path, format, [0], metadata={"seed": 1})
    with open_writer(path, format, metadata={"seed": 2}) as writer:
        assert writer.metadata == {"seed": 1}
    assert "other values given for ['seed']" in caplog.text
    assert load_dataset(path).metadata == {"seed": 1}


def test_dataset_without_journal_is_usable(path, format):
    write(path, format, range(2))
    journal_path(path).unlink()
    assert_holds(path, format, range(2))
    write(path, format, [2])
    assert_holds(path, format, range(3))


def test_moved_dataset_is_usable(path, format, tmp_path):
    write(path, format, range(2))
    path.rename(tmp_path / "moved")
    assert_holds(tmp_path / "moved", format, range(2))
    write(tmp_path / "moved", format, [2])
    assert_holds(tmp_path / "moved", format, range(3))


def test_columns_of_numbers_only(path, format):
    with open_writer(path, format) as writer:
        writer.write_episodes({"x": np.arange(3) + k} for k in range(3))
    with open_writer(path, format) as writer:
        writer.write_episode({"x": np.arange(3) + 3})
    assert load_dataset(path).get_col_data("x").tolist() == [0, 1, 2, 1, 2, 3, 2, 3, 4, 3, 4, 5]


def test_full_disk_loses_only_the_episode_being_written(path, format):
    code = (
        "import resource, sys\n"
        "from directory_episodes import make_views\n"
        "from stable_worldmodel.data import open_writer\n"
        f"writer = open_writer({str(path)!r}, {format!r})\n"
        "for k in range(4):\n"
        "    writer.write_episode(make_views(k, rows=20))\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (12000, resource.RLIM_INFINITY))\n"
        "for k in range(4, 50):\n"
        "    writer.write_episode(make_views(k, rows=20))\n"
        "    print(k, flush=True)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=HERE, capture_output=True, text=True)
    assert "File too large" in result.stderr
    acknowledged = 4 + len(result.stdout.split())
    assert load_dataset(path).num_episodes == acknowledged
    with open_writer(path, format) as writer:
        assert writer.num_episodes == acknowledged
        writer.write_episode(make_views(acknowledged, rows=20))
    for k, episode in enumerate(load_dataset(path).iter_episodes()):
        assert_close(episode, make_views(k, rows=20), format)
