"""Where the rows of a column lie is read from the file itself, and is what the library says, or is left to it."""

import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stable_worldmodel.data import HDF5Writer, load_dataset
from stable_worldmodel.data.formats.hdf5 import layout
from stable_worldmodel.data.formats.hdf5.chunk_index import chunk_addresses, lookup3_of_many
from stable_worldmodel.data.formats.hdf5.repair import lookup3
from stable_worldmodel.data.formats.hdf5.rows import row_offsets

DATA = Path(__file__).parent.parent / "data"
CHILD = Path(__file__).with_name("writing_child.py")
VERSIONS = ["earliest", "v108", "v110", "latest", ("v110", "latest")]
ROW = (2, 3, 1)


def create(file, name, rows, most_rows=None, row=ROW, dtype=np.uint8, **options):
    """A column of `rows` random rows, one per chunk."""
    shape, limit = (rows, *row), (most_rows, *row)
    dataset = file.create_dataset(name, shape, dtype, chunks=(1, *row), maxshape=limit, **options)
    fill(dataset, 0)
    return dataset


def fill(dataset, start):
    values = np.random.default_rng(start).integers(0, 256, (len(dataset) - start, *dataset.shape[1:]))
    if len(values):
        dataset[start:] = values.astype(dataset.dtype)


def said_by_library(dataset, rows):
    """The offset of each of the first `rows` rows; -1 for one that is not stored."""
    offsets = np.full(rows, -1, dtype=np.int64)

    def note(chunk):
        if chunk.chunk_offset[0] < rows:
            offsets[chunk.chunk_offset[0]] = chunk.byte_offset

    dataset.id.chunk_iter(note)
    return offsets


def assert_found(dataset, rows=None):
    """The index is understood, and gives what the library says."""
    rows = len(dataset) if rows is None else rows
    found = chunk_addresses(dataset, rows)
    assert found is not None
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, said_by_library(dataset, rows))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "set.h5"


# -- files of all versions ---------------------------------------------------------------------------------------------


# 4, 20, 52 rows end a part of an extensible array; 1,024 a page; from 131,060 on its blocks have pages
SIZES = [1, 2, 4, 5, 20, 21, 52, 53, 100, 1023, 1024, 1025, 5000, pytest.param(200_000, marks=pytest.mark.slow)]


@pytest.mark.parametrize("rows", SIZES)
@pytest.mark.parametrize("version", VERSIONS, ids=str)
def test_all_rows_are_found_where_the_library_says(path, version, rows):
    limits = [None, rows, rows + 3000]  # extensible array, fixed array, a fixed array that is not full
    with h5py.File(path, "w", libver=version) as file:
        for i, limit in enumerate(limits[: 1 if rows > 100_000 else 3]):
            create(file, f"column{i}", rows, limit)
    with h5py.File(path, "r") as file:
        for dataset in file.values():
            for part in {1, rows // 2, rows - 1, rows} - {0}:
                assert_found(dataset, part)


@pytest.mark.parametrize("limit", [20_480, 20_481, 30_001])
def test_rows_are_found_in_the_pages_of_a_fixed_array(path, limit):
    with h5py.File(path, "w", libver="latest") as file:
        create(file, "column", 20_480, limit)
    with h5py.File(path, "r") as file:
        for rows in (1, 1024, 1025, 19_968, 20_480):
            assert_found(file["column"], rows)


@settings(max_examples=60, deadline=None)
@given(
    version=st.sampled_from(VERSIONS),
    user_block=st.sampled_from([0, 512, 4096]),
    lengths=st.lists(st.integers(0, 120), min_size=1, max_size=8),
    row=st.sampled_from([(), (3,), (2, 2), (4, 5, 3)]),
    dtype=st.sampled_from([np.uint8, np.float32, np.bool_]),
    columns=st.integers(1, 3),
    attributes=st.integers(0, 12),
)
def test_rows_written_in_many_sessions_are_found(
    tmp_path_factory, version, user_block, lengths, row, dtype, columns, attributes
):
    path = tmp_path_factory.mktemp("sessions") / "set.h5"
    with h5py.File(path, "w", libver=version, userblock_size=user_block) as file:
        for i in range(columns):
            create(file, f"group/column{i}", 0, row=row, dtype=dtype, track_times=bool(attributes))
    for session, length in enumerate(lengths):  # the length of all columns from now on; it may shrink
        with h5py.File(path, "r+", libver=version) as file:
            for dataset in file["group"].values():
                start = len(dataset)
                dataset.resize(length, axis=0)
                fill(dataset, min(start, length))
                for i in range(attributes):
                    dataset.attrs[f"{session} {i}"] = "longer than the header was meant for"
    with h5py.File(path, "r") as file:
        for dataset in file["group"].values():
            if lengths[-1]:
                assert_found(dataset)
            assert row_offsets(dataset, lengths[-1]).tolist() == said_by_library(dataset, lengths[-1]).tolist()


@pytest.mark.parametrize("version", VERSIONS, ids=str)
@pytest.mark.parametrize("rows", [1, 7])
def test_rows_allocated_beforehand_are_found(path, version, rows):
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    with h5py.File(path, "w", libver=version) as file:
        create(file, "column", rows, rows, dcpl=plist)
    with h5py.File(path, "r") as file:
        assert_found(file["column"])


@pytest.mark.parametrize("version", VERSIONS, ids=str)
def test_rows_of_a_dataset_that_tracks_the_order_of_its_attributes_are_found(path, version):
    with h5py.File(path, "w", libver=version) as file:
        dataset = create(file, "column", 30, track_order=True)
        dataset.attrs.update({f"attribute {i}": np.zeros(40) for i in range(20)})
    with h5py.File(path, "r") as file:
        assert_found(file["column"])


def test_rows_of_a_file_by_a_public_release_are_found():
    with h5py.File(DATA / "hdf5" / "tiny.h5", "r") as opened:
        columns = [item for item in opened.values() if item.chunks == (1, *item.shape[1:]) and item.dtype != object]
        for column in columns:
            assert_found(column)
    assert len(columns) > 5


# -- what is left to the library ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS, ids=str)
def test_another_form_is_left_to_the_library(path, version):
    with h5py.File(path, "w", libver=version) as file:
        file.create_dataset("growing", data=np.ones((3, 4, 4)), chunks=(1, 4, 4), maxshape=(None, 8, 4))
        file.create_dataset("both", data=np.ones((3, 4, 4)), chunks=(1, 4, 4), maxshape=(None, None, 4))
        create(file, "empty", 0)
    with h5py.File(path, "r") as file:
        for name in ("growing", "both"):
            assert chunk_addresses(file[name], 3) is None
            assert row_offsets(file[name], 3).tolist() == said_by_library(file[name], 3).tolist()
        assert chunk_addresses(file["empty"], 0) is None
    with h5py.File(path, "r", driver="core") as file:
        assert chunk_addresses(file["both"], 3) is None


@pytest.mark.parametrize("version", VERSIONS, ids=str)
@pytest.mark.parametrize("limit", [None, 4000])
def test_a_row_that_was_never_written_has_no_place(path, version, limit):
    with h5py.File(path, "w", libver=version) as file:
        dataset = file.create_dataset("column", (3000, 4), "u1", chunks=(1, 4), maxshape=(limit, 4))
        dataset[:1000] = 1
        dataset[1001:2000] = 1
    with h5py.File(path, "r") as file:
        assert_found(file["column"], 1000)
        for rows in (1001, 3000):
            assert chunk_addresses(file["column"], rows) is None
            assert row_offsets(file["column"], rows) is None


# -- a writer at work --------------------------------------------------------------------------------------------------


def test_committed_rows_are_found_while_a_writer_appends(path):
    command = [sys.executable, str(CHILD), str(path), "100000", "append"]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    looks = understood = rows = 0
    try:
        while rows < 1500 or looks < 60:
            assert child.poll() is None, child.stderr.read()
            if not path.exists():
                continue
            with layout.open_for_reading(path) as file:
                lengths, offsets = layout.episode_index(file)
                rows = int((offsets + lengths).max())
                for column in layout.columns_of(file).values():
                    if column.column.kind != "image":
                        continue
                    entries = column.sizes(rows)[column.entries_path]
                    found = chunk_addresses(column.entries, entries)
                    looks += 1
                    if found is not None:
                        understood += 1
                        np.testing.assert_array_equal(found, said_by_library(column.entries, entries))
    finally:
        child.kill()
        child.communicate()
    assert understood > looks / 2


def test_a_file_written_by_a_writer_of_this_process_is_understood(path):
    episode = {"pixels": np.arange(40 * 12, dtype=np.uint8).reshape(40, 2, 2, 3), "action": np.zeros((40, 1))}
    with HDF5Writer(path) as writer:
        for k in range(1, 6):
            writer.write_episode(episode)
            with layout.open_for_reading(path) as file:
                assert_found(file["pixels"], 40 * k)


# -- damage ------------------------------------------------------------------------------------------------------------

ROWS = 1500
MOST_ROWS = {"fixed array": ROWS, "extensible array": None, "tree": None}
FLIPS = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 7)), min_size=1, max_size=12)


@pytest.fixture
def damaged(path, request):
    """A file with an index of the kind that the test is for."""
    kind = request.param
    with h5py.File(path, "w", libver="earliest" if kind == "tree" else "latest") as file:
        create(file, "column", ROWS, MOST_ROWS[kind])
    return path


def flip(path, place, bit):
    with path.open("r+b") as file:
        file.seek(place)
        (byte,) = file.read(1)
        file.seek(place)
        file.write(bytes([byte ^ 1 << bit]))


@pytest.mark.parametrize("damaged", ["fixed array", "extensible array"], indirect=True)
def test_a_flipped_bit_never_gives_another_place_where_there_are_checksums(damaged):
    with h5py.File(damaged, "r") as file:
        dataset = file["column"]
        expected = said_by_library(dataset, ROWS)  # and the library knows the index from now on
        metadata = np.ones(damaged.stat().st_size, dtype=bool)
        metadata[expected[:, None] + np.arange(np.prod(ROW))] = False
        places = np.flatnonzero(metadata)
        refused = 0

        @settings(max_examples=12, deadline=None)
        @given(FLIPS)
        def check(flips):
            nonlocal refused
            for share, bit in flips:
                place = int(places[int(share * len(places))])
                flip(damaged, place, bit)
                found = chunk_addresses(dataset, ROWS)
                flip(damaged, place, bit)
                refused += found is None
                assert found is None or found.tolist() == expected.tolist()

        check()
    assert refused


@pytest.mark.parametrize("damaged", ["tree"], indirect=True)
def test_a_flipped_bit_in_a_tree_gives_what_the_library_says(damaged):
    content = damaged.read_bytes()
    nodes = [i for i in range(len(content)) if content.startswith(b"TREE\1", i)]

    @settings(max_examples=60, deadline=None)
    @given(st.sampled_from(nodes), st.integers(0, 2000), st.integers(0, 7))
    def check(node, place, bit):
        flip(damaged, node + place, bit)
        try:
            with h5py.File(damaged, "r") as file:
                found = chunk_addresses(file["column"], ROWS)
                assert found is None or found.tolist() == said_by_library(file["column"], ROWS).tolist()
        finally:
            flip(damaged, node + place, bit)

    check()


@pytest.mark.parametrize("damaged", MOST_ROWS, indirect=True)
@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.9, 0.99])
def test_a_file_cut_short_never_gives_another_place(damaged, share):
    with h5py.File(damaged, "r") as file:
        dataset = file["column"]
        expected = said_by_library(dataset, ROWS)
        for rows in (10, ROWS):
            os.truncate(damaged, max(1, int(share * damaged.stat().st_size)))
            found = chunk_addresses(dataset, rows)
            assert found is None or found.tolist() == expected[:rows].tolist()


@given(st.lists(st.binary(min_size=1, max_size=80), min_size=1, max_size=12))
def test_many_checksums_are_those_of_each(texts):
    texts.sort(key=len, reverse=True)
    blocks = [np.frombuffer(text, dtype=np.uint8) for text in texts]
    assert lookup3_of_many(blocks).tolist() == [lookup3(text) for text in texts]


# -- what opening and reading make of it -------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [8, 160])  # copied by one thread, by several
def test_rows_are_read_in_any_order_and_with_repeats(path, side):
    images = np.random.default_rng(0).integers(0, 256, (50, side, side, 3), dtype=np.uint8)
    with HDF5Writer(path) as writer:
        writer.write_episode({"pixels": images, "action": np.zeros((50, 2))})
    ds = load_dataset(path)
    for count in (0, 1, 7, 200):
        rows = np.random.default_rng(count).integers(0, 50, count)
        np.testing.assert_array_equal(ds.get_row_data(rows)["pixels"], images[rows])


@given(st.lists(st.lists(st.sampled_from(["", "a", "b", "é"]), min_size=1, max_size=6), min_size=1, max_size=5))
@settings(max_examples=30, deadline=None)
def test_texts_are_read_as_written_whether_or_not_they_repeat(tmp_path_factory, episodes):
    path = tmp_path_factory.mktemp("texts") / "set.h5"
    with HDF5Writer(path) as writer:
        for texts in episodes:
            writer.write_episode({"task": texts, "action": np.zeros((len(texts), 1))})
    assert load_dataset(path).get_col_data("task").tolist() == [text for texts in episodes for text in texts]
