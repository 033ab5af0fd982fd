"""Lists where the rows of an HDF5 column lie by reading its chunk index straight from the file.

The library names chunks one callback at a time, which takes seconds for 10^6 rows. What is read here follows the "HDF5
File Format Specification Version 3.0", whose sections the comments name, and is no more than columns of images need:
chunks of one row without a filter. Anything else, a wrong checksum included, is left to the library.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from stable_worldmodel.data.formats.hdf5.repair import lookup3

if TYPE_CHECKING:
    import h5py

SAMPLES = 6  # rows compared with what the library reads, besides the first and the last one
BLOCKS_AT_ONCE = 2048  # about as many as fit into the processor's cache
BLOCK_BYTES = 1 << 20  # a size beyond is wrong
HEADER_BLOCKS = 64  # more of them go in a circle
ADDRESS, CHECKSUM = 8, 4  # bytes


class _UnexpectedError(ValueError):
    """The file is built in a way unknown here, is damaged, or is just being changed."""


def _expect(condition: bool | np.bool_) -> None:
    if not condition:
        raise _UnexpectedError


def chunk_addresses(dataset: h5py.Dataset, rows: int) -> np.ndarray | None:
    """Return the byte offset of each of the first `rows` chunks, int64 (rows,).

    `dataset` has chunks of one row without a filter. None when the library must be asked instead.
    """
    file, row_shape = dataset.file, dataset.shape[1:]
    if file.driver != "sec2" or file.id.get_create_plist().get_sizes() != (ADDRESS, ADDRESS):
        return None
    if not rows or dataset.maxshape[1:] != row_shape:  # images that may grow have several chunk numbers per row
        return None
    row_bytes = dataset.dtype.itemsize * int(np.prod(row_shape))
    try:
        mapped = _File(file)
        addresses = _read_index(mapped, dataset, rows)
        mapped.check_sums()
        mapped.check_inside(addresses, row_bytes)
        _compare_samples(mapped, dataset, addresses, row_bytes)
    except (ValueError, IndexError, OverflowError, struct.error, OSError, RuntimeError):  # all that damage may lead to
        return None
    return addresses.astype(np.int64) + mapped.base


def _compare_samples(file: _File, dataset: h5py.Dataset, addresses: np.ndarray, row_bytes: int) -> None:
    last = len(addresses) - 1
    for row in {0, last, *np.random.default_rng(last).integers(last + 1, size=SAMPLES).tolist()}:
        _, stored = dataset.id.read_direct_chunk((row,) + (0,) * (dataset.ndim - 1))
        _expect(stored == file.read_many(addresses[[row]], row_bytes).tobytes())


class _File:
    """The bytes of an open file. They are copied before they are looked at, because a writer may be at work."""

    def __init__(self, file: h5py.File) -> None:
        self.base = file.userblock_size  # where address 0 is
        memory = mmap.mmap(file.id.get_vfd_handle(), 0, access=mmap.ACCESS_READ)
        self._bytes = np.frombuffer(memory, dtype=np.uint8)[self.base :]
        self._unchecked: list[np.ndarray] = []

    def check_inside(self, addresses: np.ndarray, size: int) -> None:
        room = len(self._bytes) - size
        _expect(room >= 0 and (addresses <= room).all())  # 2**64 - 1, for what is not stored, is not

    def read(self, address: int, size: int) -> bytes:
        _expect(size <= BLOCK_BYTES and address + size <= len(self._bytes))
        return self._bytes[address : address + size].tobytes()

    def read_many(self, addresses: np.ndarray, size: int) -> np.ndarray:
        """Return the bytes at each of the uint64 addresses, uint8 (n, size)."""
        self.check_inside(addresses, size)
        return sliding_window_view(self._bytes, size)[addresses.astype(np.int64)]

    def block(self, address: int, size: int, start: bytes) -> bytes:
        """Return the `size` bytes between the beginning of a block, which must be `start`, and its checksum."""
        block = self.read(address, len(start) + size + CHECKSUM)
        checksum = lookup3(block[:-CHECKSUM]).to_bytes(CHECKSUM, "little")
        _expect(block.startswith(start) and block.endswith(checksum))
        return block[len(start) : -CHECKSUM]

    def blocks(self, addresses: np.ndarray, size: int, start: bytes = b"") -> np.ndarray:
        """Return the same of many blocks, uint8 (n, size). Their checksums are left to `check_sums`."""
        blocks = self.read_many(addresses, len(start) + size + CHECKSUM)
        _expect((blocks[:, : len(start)] == np.frombuffer(start, dtype=np.uint8)).all())
        self._unchecked.append(blocks)
        return blocks[:, len(start) : -CHECKSUM]

    def check_sums(self) -> None:
        """Compare the checksums of what `blocks` has returned; together, because only the longest block costs time."""
        blocks = sorted((block for part in self._unchecked for block in part), key=len, reverse=True)
        for i in range(0, len(blocks), BLOCKS_AT_ONCE):
            part = blocks[i : i + BLOCKS_AT_ONCE]
            stored = np.concatenate([block[-CHECKSUM:] for block in part]).view("<u4")
            _expect((lookup3_of_many([block[:-CHECKSUM] for block in part]) == stored).all())


def lookup3_of_many(blocks: Sequence[np.ndarray]) -> np.ndarray:
    """Return `repair.lookup3` of each of n byte strings, arrays of uint8 with the longest first; uint32 (n,)."""
    sizes = np.array([len(block) for block in blocks])
    padded = np.zeros((len(blocks), -(-sizes[0] // 12) * 12), dtype=np.uint8)
    for row, block in zip(padded, blocks, strict=True):
        row[: len(block)] = block
    words = np.ascontiguousarray(padded.view("<u4").T).reshape(-1, 3, len(blocks))
    last = (sizes - 1) // 12  # the words that are mixed differently
    state = np.tile((0xDEADBEEF + sizes).astype(np.uint32), (3, 1))
    unfinished = np.searchsorted(-last, -np.arange(last[0]))  # how many blocks go on after each of the words
    for step, n in enumerate(unfinished.tolist()):
        state[:, :n] += words[step, :, :n]
        a, b, c = state[:, :n]
        for shift_a, shift_b, shift_c in ((4, 6, 8), (16, 19, 4)):
            a -= c
            a ^= _rotated(c, shift_a)
            c += b
            b -= a
            b ^= _rotated(a, shift_b)
            a += c
            c -= b
            c ^= _rotated(b, shift_c)
            b += a
    a, b, c = state + words[last, :, np.arange(len(blocks))].T
    for shift in (14, 11, 25, 16, 4, 14, 24):
        c ^= b
        c -= _rotated(b, shift)
        a, b, c = b, c, a
    return b


def _rotated(x: np.ndarray, bits: int) -> np.ndarray:
    return (x << bits) | (x >> (32 - bits))


# -- object headers ----------------------------------------------------------------------------------------------------


def _read_index(file: _File, dataset: h5py.Dataset, rows: int) -> np.ndarray:
    """Return the addresses of the first `rows` chunks, uint64."""
    import h5py

    # h5o.get_info would know the address, too, but measures the whole index first.
    message = _layout_message(file, h5py.h5g.get_objinfo(dataset.id).objno[0])
    chunk = (*dataset.chunks, dataset.dtype.itemsize)
    # IV.A.2.i. The Data Layout Message: version, class (2 is chunked), ...
    if message.startswith(bytes((3, 2, len(chunk)))):
        address, *shape = struct.unpack_from(f"<Q{len(chunk)}I", message, 3)
        _expect(tuple(shape) == chunk)
        addresses = _version_1_btree(file, address, rows, chunk)
    else:
        version, layout, flags, ndim, width = struct.unpack_from("<5B", message)
        _expect((version, layout, ndim) == (4, 2, len(chunk)) and not flags & 2)  # 2: a single chunk has a filter
        numbers, kind = message[5 : 5 + ndim * width], message[5 + ndim * width]
        shape = [int.from_bytes(numbers[i : i + width], "little") for i in range(0, len(numbers), width)]
        _expect(tuple(shape) == chunk and kind in _INDEXES)
        parameters, read = _INDEXES[kind]
        (address,) = struct.unpack_from("<Q", message, 6 + ndim * width + parameters)
        addresses = read(file, address, rows, int(np.prod(chunk)))
    _expect(len(addresses) == rows)
    return addresses


def _layout_message(file: _File, address: int) -> bytes:
    """Return the data layout message of the object header at `address`."""
    head = file.read(address, 16)
    checked = head.startswith(b"OHDR\2")
    if checked:  # IV.A.1.b. Version 2 Data Object Header Prefix
        flags = head[5]
        prefix = 6 + (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0)  # with times, with attribute storage
        start = file.read(address, prefix + (1 << (flags & 3)))
        blocks = [file.block(address, int.from_bytes(start[prefix:], "little"), start)]
        message = struct.Struct("<BHB2x" if flags & 4 else "<BHB")
    else:  # IV.A.1.a. Version 1 Data Object Header Prefix
        version, size = struct.unpack("<B7xI4x", head)
        _expect(version == 1)
        blocks = [file.read(address + len(head), size)]
        message = struct.Struct("<HHB3x")
    found = []
    for block in blocks:
        position = 0
        while position + message.size <= len(block):
            kind, size, flags = message.unpack_from(block, position)
            position += message.size
            if kind == 0x08:  # the data layout
                _expect(not flags & 2)  # 2: it is stored elsewhere
                found.append(block[position : position + size])
            elif kind == 0x10:  # IV.A.2.q. The Object Header Continuation Message
                where, length = struct.unpack_from("<QQ", block, position)
                blocks.append(file.block(where, length - 8, b"OCHK") if checked else file.read(where, length))
                _expect(len(blocks) <= HEADER_BLOCKS)
            position += size
    _expect(len(found) == 1)
    return found[0]


# -- chunk indexes -----------------------------------------------------------------------------------------------------


def _version_1_btree(file: _File, address: int, rows: int, chunk: tuple[int, ...]) -> np.ndarray:
    """III.A.1. Version 1 B-trees. The nodes of a level at a time; the lowest have the chunks, in order."""
    entry = np.dtype([("bytes", "<u4"), ("filters", "<u4"), ("start", "<u8", len(chunk)), ("child", "<u8")])
    nodes = np.array([address], dtype=np.uint64)
    for level in range(file.read(address, 6)[5], -1, -1):
        children, row = [], 0
        for i in range(0, len(nodes), BLOCKS_AT_ONCE):
            part = nodes[i : i + BLOCKS_AT_ONCE]
            heads = file.read_many(part, 24)
            _expect((heads[:, :6] == np.frombuffer(b"TREE\1" + bytes([level]), dtype=np.uint8)).all())
            used = heads[:, 6:8].copy().view("<u2")  # (n, 1)
            entries = file.read_many(part + np.uint64(24), int(used.max()) * entry.itemsize).view(entry)
            entries = entries[np.arange(entries.shape[1]) < used]
            children.append(entries["child"].copy())  # lets go of the rest
            if level == 0:
                keys = entries[: max(rows - row, 0)]
                first, others = np.split(keys["start"], [1], axis=1)
                _expect((first[:, 0] == np.arange(row, row + len(keys))).all() and not others.any())
                _expect((keys["bytes"] == np.prod(chunk)).all() and not keys["filters"].any())
                row += len(keys)
        nodes = np.concatenate(children)
    return nodes[:rows]


def _contiguous(file: _File, address: int, rows: int, row_bytes: int) -> np.ndarray:
    """VII.A. The Single Chunk Index, VII.B. The Implicit Index."""
    last = np.array([address + (rows - 1) * row_bytes], dtype=np.uint64)
    file.check_inside(last, row_bytes)
    return np.uint64(address) + np.arange(rows, dtype=np.uint64) * np.uint64(row_bytes)


def _fixed_array(file: _File, address: int, rows: int, row_bytes: int) -> np.ndarray:
    """VII.C. The Fixed Array Index: one block of addresses, in pages when there are many."""
    entry_bytes, page_bits, entries, block = struct.unpack("<BBQQ", file.block(address, 18, b"FAHD\0\0"))
    _expect(entry_bytes == ADDRESS and page_bits < 16 and rows <= entries)
    page, start = 1 << page_bits, b"FADB\0\0" + struct.pack("<Q", address)
    if entries <= page:
        return np.frombuffer(file.block(block, ADDRESS * entries, start), dtype="<u8")[:rows]
    wanted, bitmap_bytes = -(-rows // page), -(-entries // (8 * page))
    _expect_pages(file.block(block, bitmap_bytes, start), wanted)
    first = block + len(start) + bitmap_bytes + CHECKSUM
    pages = _pages_at(np.array([first], dtype=np.uint64), page, wanted)
    full, rest = divmod(entries, page)  # the last page may be short
    found = [file.blocks(pages[:full], ADDRESS * page), file.blocks(pages[full:], ADDRESS * rest)]
    return np.concatenate([_as_addresses(part) for part in found])[:rows]


def _extensible_array(file: _File, address: int, rows: int, row_bytes: int) -> np.ndarray:
    """VII.D. The Extensible Array Index: some addresses, then levels of ever more blocks with ever more of them."""
    header = struct.unpack("<6B48xQ", file.block(address, 62, b"EAHD\0\0"))
    entry_bytes, size_bits, indexed, least, pointers, page_bits, index_block = header
    _expect(entry_bytes == ADDRESS and page_bits < 16 and least > 0 and pointers > 0)
    owner, offset_bytes, page = struct.pack("<Q", address), -(-size_bits // 8), 1 << page_bits
    direct_levels, direct = 2 * (pointers.bit_length() - 1), 2 * (pointers - 1)  # without a secondary block
    levels = 1 + size_bits - (least.bit_length() - 1)
    index_bytes = ADDRESS * (indexed + direct + levels - direct_levels)
    index = np.frombuffer(file.block(index_block, index_bytes, b"EAIB\0\0" + owner), dtype="<u8")
    data_blocks, secondary_blocks = np.split(index[indexed:], [direct])
    found, first = [index[:indexed]], 0  # `first` does not count those in the index block
    for level in range(levels):
        count, entries = 1 << (level // 2), least << ((level + 1) // 2)  # of data blocks; of addresses in each
        wanted = min(count * entries, rows - indexed - first)
        if wanted <= 0:
            break
        if level < direct_levels:
            _expect(entries <= page)
            blocks, data_blocks = data_blocks[:count], data_blocks[count:]
        else:
            bitmap_bytes = count * -(-entries // (8 * page)) if entries > page else 0
            start = b"EASB\0\0" + owner + first.to_bytes(offset_bytes, "little")
            secondary = int(secondary_blocks[level - direct_levels])
            content = file.block(secondary, bitmap_bytes + ADDRESS * count, start)
            _expect_pages(content[:bitmap_bytes], -(-wanted // page) if bitmap_bytes else 0)
            blocks = np.frombuffer(content[bitmap_bytes:], dtype="<u8")
        found.append(_data_blocks(file, blocks, b"EADB\0\0" + owner, offset_bytes, entries, page, wanted))
        first += count * entries
    return np.concatenate(found)[:rows]


def _data_blocks(
    file: _File, blocks: np.ndarray, start: bytes, offset_bytes: int, entries: int, page: int, wanted: int
) -> np.ndarray:
    """Return at least `wanted` addresses from data blocks with `entries` each, in pages when these are many."""
    blocks = blocks[: -(-wanted // entries)]
    paged = entries > page
    contents = file.blocks(blocks, offset_bytes + (0 if paged else ADDRESS * entries), start)
    if not paged:
        return _as_addresses(contents[:, offset_bytes:])
    first = blocks + np.uint64(len(start) + offset_bytes + CHECKSUM)
    pages = _pages_at(first, page, entries // page)[: -(-wanted // page)]
    return _as_addresses(file.blocks(pages, ADDRESS * page))


def _expect_pages(bitmap: bytes, pages: int) -> None:
    """Raise _UnexpectedError when one of the first pages of an array was never written."""
    _expect(np.unpackbits(np.frombuffer(bitmap, dtype=np.uint8))[:pages].all() and 8 * len(bitmap) >= pages)


def _pages_at(first: np.ndarray, page: int, pages: int) -> np.ndarray:
    """Return where `pages` pages lie, of `page` addresses each, that follow each other from each address `first` on."""
    return (first[:, None] + np.arange(pages, dtype=np.uint64) * np.uint64(ADDRESS * page + CHECKSUM)).ravel()


def _as_addresses(blocks: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(blocks).reshape(-1).view("<u8")


# what each chunk index of a version 4 layout message has before its address, in bytes, and how it is read
_INDEXES = {1: (0, _contiguous), 2: (0, _contiguous), 3: (1, _fixed_array), 4: (5, _extensible_array)}
