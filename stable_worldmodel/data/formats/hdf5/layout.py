"""What a dataset looks like inside an HDF5 file: the columns and the episode index.

Every column is a resizable root dataset over the rows of all episodes, or a group of two where images are stored once,
see `hdf5.columns`. `ep_len` (E,) int32 and `ep_offset` (E,) int64 tell which rows belong to which episode. Images have
one frame per chunk and no filter, so that a reader can address frames by byte offset; numbers have chunks of about
128 KiB; text is fixed-length UTF-8, because variable-length data lives in a heap that does not survive a killed writer.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import io
import logging
import os
import time
import uuid
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stable_worldmodel.data.columns import INDEX_COLUMNS, Column
from stable_worldmodel.data.formats.hdf5.columns import FRAMES, ROW, StoredColumn, stored_column
from stable_worldmodel.data.formats.hdf5.repair import is_marked_open, read_superblock, superblock_version
from stable_worldmodel.errors import ContractError, MissingKeyError, NotFoundError

try:
    import resource
except ImportError:  # Windows has no limits of this kind
    resource = None  # type: ignore[assignment]

if TYPE_CHECKING:
    import h5py

logger = logging.getLogger(__name__)

ID_ATTRIBUTE = "swm_dataset_id"  # ties the file to its journal
TABLE_CHUNK_BYTES = 128 * 1024
INDEX_CHUNK_ROWS = 1024
ENTRY_BYTES, INDEX_BYTES = 24, 4 << 10  # of the library's index of chunks, at most: per chunk and beside them
CHUNK_CACHE_BYTES = 256 << 20  # of a reader
READ_ATTEMPTS = 24  # of metadata with a wrong checksum
OPEN_PATIENCE = 2.0  # seconds; a writer that is just opening locks readers out for milliseconds


def open_for_reading(path: Path) -> h5py.File:
    """Open a local file, also while a writer appends to it."""
    import h5py

    with contextlib.suppress(ImportError):
        import hdf5plugin  # noqa: F401  registers the compression filters it brings
    if not path.exists():
        raise NotFoundError(f"{path} does not exist")
    deadline = time.monotonic() + OPEN_PATIENCE
    while True:
        block = read_superblock(path)
        try:
            if superblock_version(block) < 3:
                return h5py.File(path, "r", rdcc_nbytes=CHUNK_CACHE_BYTES)
            return _follow_writer(path)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise
        except OSError as error:
            if not is_marked_open(block):
                raise
            raise ContractError(
                f"{path}: its writer runs or died without the crash-safe mode; once it is dead, open a writer with "
                "mode='append' and close it to repair the file"
            ) from error
        time.sleep(0.01)


@contextlib.contextmanager
def damage_explained(location: object) -> Iterator[None]:
    """What the library raises when it meets damaged metadata, as ContractError that names the file."""
    try:
        yield
    except (ContractError, MissingKeyError, NotFoundError):
        raise
    except (OSError, RuntimeError, IndexError, KeyError, ValueError, OverflowError) as error:
        if getattr(error, "errno", None) is not None:  # of the operating system, not of what is in the file
            raise
        raise ContractError(f"{location}: damaged, it cannot be read: {error}") from error


def _follow_writer(path: Path) -> h5py.File:
    """Open a file that may be appended to while we read, by the writer's protocol."""
    import h5py

    access = _access()
    elements, slots, _, preemption = access.get_cache()
    access.set_cache(elements, slots, CHUNK_CACHE_BYTES, preemption)
    flags = h5py.h5f.ACC_RDONLY | h5py.h5f.ACC_SWMR_READ
    return h5py.File(h5py.h5f.open(os.fsencode(path), flags, access))


def _access() -> Any:
    """How a file is opened in single-writer/multiple-reader mode.

    Metadata with a wrong checksum may be about to be completed, so the library reads it again, and waits twice as long
    each time: for hours, by default, if it is damaged. `READ_ATTEMPTS` take hundredths of a second.
    """
    import h5py

    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    with contextlib.suppress(AttributeError, OSError):  # h5py has no name for it; its library does, if it shows it
        set_attempts = ctypes.CDLL(h5py.h5p.__file__).H5Pset_metadata_read_attempts
        set_attempts.argtypes = [ctypes.c_int64, ctypes.c_uint]
        set_attempts(access.id, READ_ATTEMPTS)
    return access


def episode_index(file: h5py.File) -> tuple[np.ndarray, np.ndarray]:
    """Return lengths and offsets (E,) int64 of the committed episodes. Raises ContractError when there is no index."""
    missing = [name for name in INDEX_COLUMNS if name not in file]
    if missing:
        raise ContractError(f"{file.filename}: expected a dataset file with {INDEX_COLUMNS}, {missing} not found")
    # ep_len is the commit point: it is extended last, and a row still zero was extended but not yet written.
    lengths = file["ep_len"][:].astype(np.int64)
    committed = int(np.flatnonzero(lengths)[-1]) + 1 if lengths.any() else 0
    offsets = file["ep_offset"][:committed].astype(np.int64)
    if len(offsets) < committed:
        raise ContractError(f"{file.filename}: ep_len has {committed} episodes, ep_offset only {len(offsets)}")
    return lengths[:committed], offsets


def columns_of(file: h5py.File, rows: int = 0) -> dict[str, StoredColumn]:
    """Return the columns of at least `rows` readable rows; other root entries are left alone with a warning."""
    columns = {}
    for name, item in file.items():
        if name in INDEX_COLUMNS:
            continue
        column = stored_column(name, item)
        if column is None or column.readable_rows() < rows:
            logger.warning("%s: %r is not a column of %d rows and is ignored", file.filename, name, rows)
            continue
        columns[name] = column
    return columns


def datasets_of(file: h5py.File, columns: Mapping[str, StoredColumn]) -> dict[str, h5py.Dataset]:
    """Return the datasets of the columns and of the index, by path in the file."""
    datasets = {path: dataset for column in columns.values() for path, dataset in column.datasets.items()}
    return {**datasets, **{name: file[name] for name in INDEX_COLUMNS}}


def sizes_of(columns: Mapping[str, StoredColumn], rows: int, episodes: int) -> dict[str, int]:
    """Return how long each of these datasets is when `episodes` episodes of `rows` rows in all are stored."""
    sizes = {path: size for column in columns.values() for path, size in column.sizes(rows).items()}
    return {**sizes, **dict.fromkeys(INDEX_COLUMNS, episodes)}


def cut(datasets: Mapping[str, h5py.Dataset], sizes: Mapping[str, int]) -> None:
    """Shorten datasets to `sizes`; the index first, because readers go by it."""
    for name, dataset in sorted(datasets.items(), key=lambda item: item[0] not in INDEX_COLUMNS):
        if len(dataset) > sizes[name]:
            dataset.resize(sizes[name], axis=0)
            dataset.flush()


def encode_texts(columns: Mapping[str, np.ndarray], widths: Mapping[str, int]) -> dict[str, np.ndarray]:
    """Return `columns` as they are stored: text as fixed-length UTF-8 of `widths` bytes, the rest unchanged.

    Raises ContractError when a text is too long; texts are never cut.
    """
    import h5py

    stored = dict(columns)
    for name, width in widths.items():
        encoded = [text.encode() for text in columns[name]]
        longest = max(map(len, encoded))
        if longest > width:
            raise ContractError(
                f"column {name!r}: a text of {longest} bytes does not fit into {width}; "
                f"create the dataset with text_width={longest} or more"
            )
        stored[name] = np.array(encoded, dtype=h5py.string_dtype("utf-8", width))
    return stored


def identity_of(file: h5py.File) -> str | None:
    """Return what ties the file to its journal; None for files of other programs."""
    found = file.attrs.get(ID_ATTRIBUTE)
    return found.decode() if isinstance(found, bytes) else found


def _identify(file: h5py.File, dataset_id: str) -> None:
    # Of fixed length: texts of any length lie in a heap, and the library loops for ever over one that is damaged.
    file.attrs[ID_ATTRIBUTE] = np.bytes_(dataset_id)


def create_file(path: Path, stored: Mapping[str, np.ndarray], unique: Collection[str] = ()) -> str:
    """Write a new file for episodes like `stored`, without a row yet, and return its identity.

    Images of columns `unique` are stored once. Raises OSError when the disk has no room for the first episode: were the
    library to find that out, it would crash at the end of the program over the beginnings of a file that it cannot
    write. So it makes the file in memory, and what it adds later has its place.
    """
    import h5py

    dataset_id = uuid.uuid4().hex
    memory = io.BytesIO()
    # v110 is the oldest file version in which a reader can follow a writer (SWMR).
    with h5py.File(memory, "w", libver=("v110", "latest")) as file:
        _identify(file, dataset_id)
        for name, values in stored.items():
            if name in unique:
                _create_dataset(file, f"{name}/{FRAMES}", values.dtype, values.shape[1:])
                _create_dataset(file, f"{name}/{ROW}", np.dtype(np.int64), ())
            else:
                _create_dataset(file, name, values.dtype, values.shape[1:])
        for name, dtype in (("ep_offset", np.int64), ("ep_len", np.int32)):
            file.create_dataset(name, (0,), dtype, maxshape=(None,), chunks=(INDEX_CHUNK_ROWS,))
        datasets = datasets_of(file, columns_of(file)).values()
        room = sum(_most_bytes(dataset, len(next(iter(stored.values())))) for dataset in datasets)
    path.write_bytes(memory.getbuffer())
    _reserve(path, memory.getbuffer().nbytes + room)
    return dataset_id


def _create_dataset(file: h5py.File, path: str, dtype: np.dtype, row_shape: tuple[int, ...]) -> None:
    image = Column.of(np.empty((0, *row_shape), dtype)).kind == "image"
    row_bytes = dtype.itemsize * int(np.prod(row_shape))
    file.create_dataset(
        path,
        (0, *row_shape),
        dtype,
        maxshape=(None, *row_shape),
        chunks=(1 if image else max(1, TABLE_CHUNK_BYTES // row_bytes), *row_shape),
        fill_time="never" if image else "ifset",
    )


def _most_bytes(dataset: h5py.Dataset, rows: int) -> int:
    """Return what a dataset without rows may add to the file when it gets so many."""
    chunks = -(-rows // dataset.chunks[0])
    return chunks * (int(np.prod(dataset.chunks)) * dataset.dtype.itemsize + ENTRY_BYTES) + INDEX_BYTES


def _reserve(path: Path, size: int) -> None:
    """Take `size` bytes of the disk for a file, where the system can; OSError when there are not as many."""
    if not hasattr(os, "posix_fallocate"):
        return
    with path.open("r+b") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
                raise OSError(error.errno, os.strerror(error.errno), str(path)) from error


def check_size_limit(path: Path) -> None:
    """Raise OSError when this process may not write to all of the file, which the library takes as badly."""
    if resource is None:
        return
    limit, size = resource.getrlimit(resource.RLIMIT_FSIZE)[0], path.stat().st_size
    if limit != resource.RLIM_INFINITY and limit < size:
        raise OSError(errno.EFBIG, f"{size} bytes, the limit of this process is {limit}", str(path))


def prepare_append(path: Path) -> str:
    """Check that `path` can be appended to and return its identity, giving one to a file that has none."""
    import h5py

    with h5py.File(path, "r") as file:
        _check_appendable(file)
        dataset_id = identity_of(file)
    if dataset_id is None:
        dataset_id = uuid.uuid4().hex
        with h5py.File(path, "r+") as file:
            _identify(file, dataset_id)
    return dataset_id


def open_for_append(path: Path) -> h5py.File:
    """Open an existing file for single-writer/multiple-reader appending from the first instant on.

    Opening normally and switching later would leave a file that no reader accepts, if the process dies in between.
    """
    import h5py

    access = _access()
    access.set_libver_bounds(h5py.h5f.LIBVER_V110, h5py.h5f.LIBVER_LATEST)
    flags = h5py.h5f.ACC_RDWR | h5py.h5f.ACC_SWMR_WRITE
    return h5py.File(h5py.h5f.open(os.fsencode(path), flags, fapl=access))


def _check_appendable(file: h5py.File) -> None:
    """Raise ContractError when the file cannot be appended to without endangering what it holds."""
    import h5py

    lengths, offsets = episode_index(file)
    rows = int((offsets + lengths).max(initial=0))
    columns = columns_of(file)
    short = [name for name, column in columns.items() if column.readable_rows() < rows]
    if short:
        raise ContractError(
            f"{file.filename}: columns {short} are shorter than the {rows} rows of the episodes; "
            "look with data.verify(path), and cut to the last good episode with repair=True"
        )

    version = superblock_version(read_superblock(Path(file.filename)))
    faults = [] if version == 3 else [f"superblock version {version}: expected 3, which readers can follow"]
    for name, item in {**file, **datasets_of(file, columns)}.items():
        if not isinstance(item, h5py.Dataset) or not item.ndim:
            continue
        if item.chunks is None or item.maxshape[0] is not None:
            faults.append(f"{name}: not resizable")
        elif (string := h5py.check_string_dtype(item.dtype)) and string.length is None:
            faults.append(f"{name}: variable-length text, which a killed writer would destroy")
    if faults:
        raise ContractError(
            f"{file.filename}: cannot be appended to:\n  " + "\n  ".join(faults) + "\ncopy its episodes into a new "
            "dataset: writer.write_episodes(load_dataset(path).iter_episodes())"
        )
