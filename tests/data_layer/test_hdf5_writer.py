"""What the HDF5 writer puts on disk, accepts, refuses and promises."""

import logging
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from episode_factory import assert_same_datasets, assert_same_episode, make_episode

from stable_worldmodel.data import DatasetLockedError, HDF5Writer, load_dataset
from stable_worldmodel.data.formats.hdf5.repair import is_marked_open, read_superblock
from stable_worldmodel.data.journal import journal_path, read_journal
from stable_worldmodel.errors import ContractError

HERE = Path(__file__).parent


@pytest.fixture
def path(tmp_path):
    return tmp_path / "set.h5"


def write(path, episodes, **options):
    with HDF5Writer(path, **options) as writer:
        writer.write_episodes(make_episode(k) for k in episodes)


def assert_holds(path, episodes):
    found = list(load_dataset(path).iter_episodes())
    assert len(found) == len(episodes)
    for episode, k in zip(found, episodes, strict=True):
        assert_same_episode(episode, make_episode(k))


def entries(folder):
    return sorted(entry.name for entry in folder.iterdir())


def test_plain_h5py_sees_the_documented_layout(path):
    write(path, range(3))
    with h5py.File(path, "r") as file:
        rows = sum(file["ep_len"][:])
        assert (file["ep_len"].dtype, file["ep_offset"].dtype) == (np.int32, np.int64)
        assert file["ep_offset"][:].tolist() == [0, *np.cumsum(file["ep_len"][:])[:-1].tolist()]
        expected = make_episode(0)
        assert set(file) == {*expected, "ep_len", "ep_offset"}
        for name in expected:
            dataset = file[name]
            assert (len(dataset), dataset.maxshape[0], dataset.compression) == (rows, None, None)
            chunk_bytes = np.prod(dataset.chunks) * dataset.dtype.itemsize
            assert dataset.chunks[0] == 1 if name == "pixels" else 2**16 <= chunk_bytes <= 2**18
        text = h5py.check_string_dtype(file["policy"].dtype)
        assert (text.encoding, text.length) == ("utf-8", 64)
        assert file["policy"].asstr()[0] == "politique-é-0"
    assert not is_marked_open(read_superblock(path))


def test_round_trip_is_exact_and_lists_equal_arrays(path):
    with HDF5Writer(path) as writer:
        for k in range(3):
            writer.write_episode({name: list(values) for name, values in make_episode(k).items()})
    assert_holds(path, range(3))


def test_append_continues(path):
    write(path, range(2))
    with HDF5Writer(path, mode="append") as writer:
        assert writer.num_episodes == 2
        writer.write_episode(make_episode(2))
        assert writer.num_episodes == 3
    assert_holds(path, range(3))


def test_equal_episodes_give_equal_columns_in_one_or_many_sessions(path, tmp_path):
    write(path, range(4))
    other = tmp_path / "other.h5"
    for k in range(4):
        write(other, [k])
    assert_same_datasets(path, other)


def test_error_mode_refuses_an_existing_file_and_touches_nothing(path):
    write(path, range(1), mode="error")
    before = path.read_bytes(), entries(path.parent)
    with pytest.raises(FileExistsError, match="choose another path"):
        HDF5Writer(path, mode="error")
    assert (path.read_bytes(), entries(path.parent)) == before


def test_overwrite_swaps_on_success_and_shows_the_old_set_until_then(path):
    write(path, range(3), metadata={"run": "old"})
    with HDF5Writer(path, mode="overwrite", metadata={"run": "new"}) as writer:
        writer.write_episode(make_episode(7))
        assert_holds(path, range(3))
    assert_holds(path, [7])
    assert load_dataset(path).metadata == {"run": "new"}
    assert entries(path.parent) == ["set.h5", "set.h5.journal"]


def test_overwrite_keeps_the_old_set_after_an_exception(path, caplog):
    def stream():
        yield make_episode(7)
        raise ZeroDivisionError

    write(path, range(3))
    with pytest.raises(ZeroDivisionError), HDF5Writer(path, mode="overwrite") as writer:
        writer.write_episodes(stream())
    assert_holds(path, range(3))
    assert "was not replaced; the 1 new episodes are in" in caplog.text
    write(path, [3])  # the next writer cleans up
    assert entries(path.parent) == ["set.h5", "set.h5.journal"]


def test_overwrite_without_an_episode_keeps_the_old_set(path):
    write(path, range(2))
    write(path, [], mode="overwrite")
    assert_holds(path, range(2))


def test_exception_keeps_complete_episodes_and_propagates(path):
    def stream():
        yield make_episode(0)
        yield make_episode(1)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), HDF5Writer(path) as writer:
        writer.write_episodes(stream())
    assert_holds(path, range(2))


def test_writer_without_episodes_leaves_nothing(path):
    write(path, [])
    assert entries(path.parent) == []


def test_second_writer_is_refused_until_the_first_closes(path):
    with HDF5Writer(path) as writer:
        writer.write_episode(make_episode(0))
        with pytest.raises(DatasetLockedError, match=f'"pid": {os.getpid()}'):
            HDF5Writer(path)
        code = f"from stable_worldmodel.data import HDF5Writer; HDF5Writer({str(path)!r})"
        other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert "DatasetLockedError" in other.stderr
    write(path, [1])
    assert_holds(path, range(2))


def test_lock_of_a_dead_writer_is_taken_over(path):
    code = f"from stable_worldmodel.data import HDF5Writer; import os; w = HDF5Writer({str(path)!r}); os._exit(1)"
    subprocess.run([sys.executable, "-c", code])
    assert entries(path.parent) == ["set.h5.lock"]
    write(path, [0])
    assert_holds(path, [0])


def test_forked_child_does_not_hold_the_lock(path):
    writer = HDF5Writer(path)
    child = os.fork()
    if child == 0:
        signal.pause()
    try:
        writer.close()
        write(path, [0])
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_closed_writer_says_so(path):
    writer = HDF5Writer(path)
    writer.write_episode(make_episode(0))
    writer.close()
    writer.close()
    with pytest.raises(RuntimeError, match="writer is closed"):
        writer.write_episode(make_episode(1))


def changed(**changes):
    episode = {**make_episode(5), **changes}
    return {name: values for name, values in episode.items() if values is not None}


@pytest.mark.parametrize(
    ("episode", "message"),
    [
        (changed(reward=None), "reward: missing"),
        (changed(extra=np.zeros(len(make_episode(5)["reward"]))), "extra: not in the dataset"),
        (changed(reward=np.zeros(3)), "equal lengths"),
        (changed(grid=np.zeros((len(make_episode(5)["reward"]), 3))), r"grid: expected shape \(2, 3\).*found \(3,\)"),
        (changed(seed=make_episode(5)["reward"]), "seed: expected int64, found float64"),
        (changed(policy=make_episode(5)["reward"]), "policy: expected text, found float64"),
        (changed(policy=["x" * 65] * len(make_episode(5)["reward"])), "65 bytes does not fit into 64.*text_width=65"),
        (changed(reward=[np.zeros(2), np.zeros(3)]), "rows differ in shape"),
        (changed(reward=1.0), "one value per row"),
        (changed(ep_len=[1]), "reserved"),
        ({**make_episode(5), "a/b": [1], "a_b": [1]}, "both mean column 'a_b'"),
        ({}, "at least one column"),
        ({"reward": []}, "at least one column and one row"),
    ],
)
def test_bad_episode_is_refused_before_anything_is_written(path, episode, message):
    write(path, range(2))
    before = path.read_bytes()
    with HDF5Writer(path) as writer, pytest.raises(ContractError, match=message):
        writer.write_episode(episode)
    assert path.read_bytes() == before
    write(path, [2])
    assert_holds(path, range(3))


def test_numbers_of_the_same_kind_are_cast_if_they_fit(path):
    with HDF5Writer(path) as writer:
        writer.write_episode({"x": np.float32([1, 2]), "n": np.int16([1, 2])})
        writer.write_episode({"x": [0.5, 0.25], "n": [3, 4]})
        with pytest.raises(ContractError, match="n: values do not fit into int16"):
            writer.write_episode({"x": [0.5], "n": [2**20]})
    assert load_dataset(path).get_col_data("x").dtype == np.float32
    assert load_dataset(path).get_col_data("n").tolist() == [1, 2, 3, 4]


def test_keys_are_renamed_skipped_and_dropped_with_one_warning(path, caplog):
    episode = {"a/b": [1, 2], "_hidden": [1, 2], "_episode_data": {"x": 1}, "obj": [object()] * 2, "ep_idx": [0, 0]}
    with HDF5Writer(path) as writer, caplog.at_level(logging.WARNING):
        writer.write_episodes([episode] * 3)
    assert load_dataset(path).column_names == ["a_b"]
    dropped = sorted(record.getMessage() for record in caplog.records)
    assert dropped == [
        "column 'ep_idx' is not stored: readers derive it",
        "column 'obj' is not stored: its values are not numbers, images or text",
    ]


def test_text_width_grows_with_the_first_episode(path):
    with HDF5Writer(path) as writer:
        writer.write_episode({"text": ["é" * 50]})
        writer.write_episode({"text": ["é" * 64]})
    assert load_dataset(path).get_col_data("text").tolist() == ["é" * 50, "é" * 64]


def test_journal_describes_every_episode(path):
    write(path, range(2), metadata={"env": "swm/PushT-v1", "seed": np.int64(3)})
    write(path, [2])
    (header, *episodes) = [record for record, _ in read_journal(journal_path(path))]
    assert header["metadata"] == {"env": "swm/PushT-v1", "seed": 3}
    assert header["columns"]["pixels"] == {"dtype": "uint8", "shape": [16, 16, 3]}
    assert [record["i"] for record in episodes] == [0, 1, 2]
    assert [record["len"] for record in episodes] == load_dataset(path).lengths.tolist()
    assert [record["seed"] for record in episodes] == [1000, 1001, 1002]
    assert set(episodes[0]["crc32"]) == set(make_episode(0))


def test_metadata_of_the_first_session_stays(path, caplog):
    write(path, [0], metadata={"seed": 1})
    with HDF5Writer(path, metadata={"seed": 2}) as writer:
        assert writer.metadata == {"seed": 1}
    assert "other values given for ['seed']" in caplog.text
    assert load_dataset(path).metadata == {"seed": 1}


def test_metadata_must_be_plain(path):
    with pytest.raises(ContractError, match="expected JSON types"):
        HDF5Writer(path, metadata={"policy": object()})


def test_torn_journal_line_is_ignored_and_written_again(path):
    write(path, range(3))
    complete = journal_path(path).read_bytes()
    journal_path(path).write_bytes(complete[:-20])
    assert load_dataset(path).num_episodes == 3
    write(path, [])
    assert journal_path(path).read_bytes() == complete


def test_journal_of_another_file_is_ignored(path, tmp_path):
    write(path, [0], metadata={"run": 1})
    other = tmp_path / "other.h5"
    write(other, [5], metadata={"run": 2})
    journal_path(path).write_bytes(journal_path(other).read_bytes())
    assert load_dataset(path).metadata == {}
    write(path, [1], metadata={"run": 3})
    assert load_dataset(path).metadata == {}  # how the first episode was made is not known
    assert_holds(path, [0, 1])


def test_dataset_without_journal_is_usable(path):
    write(path, range(2))
    journal_path(path).unlink()
    assert_holds(path, range(2))
    write(path, [2])
    assert_holds(path, range(3))


def foreign_file(path, text_dtype):
    """The layout of the public package: one row per chunk; episodes not in row order, as after a merge."""
    first, second = make_episode(0), make_episode(1)
    lengths = [len(first["reward"]), len(second["reward"])]
    with h5py.File(path, "w", libver="latest") as file:
        for name, values in second.items():
            rows = [text.encode() if isinstance(text, str) else text for text in (*values, *first[name])]
            dtype = text_dtype if name == "policy" else values.dtype
            shape = np.shape(values)[1:]
            file.create_dataset(
                name, data=np.array(rows, dtype=dtype), maxshape=(None, *shape), chunks=(1, *shape), dtype=dtype
            )
        file.create_dataset("ep_len", data=np.int32(lengths), maxshape=(None,), chunks=(8,))
        file.create_dataset("ep_offset", data=np.int64([lengths[1], 0]), maxshape=(None,), chunks=(8,))


def test_foreign_file_is_read_and_continued(path):
    foreign_file(path, h5py.string_dtype("utf-8", 32))
    assert_holds(path, range(2))
    lengths = [len(make_episode(k)["reward"]) for k in (1, 0)]
    assert load_dataset(path).get_col_data("episode_idx").tolist() == np.repeat([1, 0], lengths).tolist()
    write(path, [2])
    assert_holds(path, range(3))


def test_foreign_variable_length_text_is_read_but_not_appended_to(path):
    foreign_file(path, h5py.string_dtype())
    assert_holds(path, range(2))
    before = path.read_bytes()
    with pytest.raises(ContractError, match=r"policy: variable-length text.*\n.*copy its episodes"):
        HDF5Writer(path)
    assert path.read_bytes() == before
    assert entries(path.parent) == ["set.h5"]


def test_file_of_another_kind_is_refused(path):
    path.write_text("not a dataset")
    with pytest.raises(ContractError, match="expected an HDF5 file"):
        load_dataset(path)
    with h5py.File(path, "w") as file:
        file["x"] = [1]
    with pytest.raises(ContractError, match="expected a dataset file"):
        load_dataset(path)


def test_full_disk_loses_only_the_episode_being_written(path):
    code = (
        "import resource, sys\n"
        "from episode_factory import make_episode\n"
        "from stable_worldmodel.data import HDF5Writer\n"
        f"writer = HDF5Writer({str(path)!r})\n"
        "writer.write_episode(make_episode(0))\n"
        "writer.write_episode(make_episode(1))\n"
        f"size = __import__('os').path.getsize({str(path)!r})\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (size + 40000, resource.RLIM_INFINITY))\n"
        "for k in range(2, 50):\n"
        "    writer.write_episode(make_episode(k))\n"
        "    print(k, flush=True)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=HERE, capture_output=True, text=True)
    assert "File too large" in result.stderr
    acknowledged = 2 + len(result.stdout.split())
    assert load_dataset(path).num_episodes == acknowledged
    assert_holds(path, range(acknowledged))
    write(path, [acknowledged])
    assert_holds(path, range(acknowledged + 1))


def test_memory_is_bounded_by_one_episode(path):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with HDF5Writer(path) as writer:
        for k in range(40):
            writer.write_episode({"pixels": np.full((64, 128, 128, 3), k, dtype=np.uint8)})
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown * 1024 < 6 * 64 * 128 * 128 * 3
