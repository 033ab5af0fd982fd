"""MP4 videos of episodes: encoding with frequent key frames, and decoding single frames without reading the rest.

A video is looked through once for the position of its packets. From then on a frame costs the packets from the last
key frame before it, which are read and handed to a decoder that stays open; nothing of the container is parsed again.
Frame t is the one shown t-th, whatever the time stamps say.
"""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from stable_worldmodel.data.formats.shared.disk import SEAL_BYTES, check_seal, seal
from stable_worldmodel.errors import ContractError, require

FPS = 25  # nominal: nobody plays these in real time
GOP = 2  # frames from one key frame to the next
CRF = 18  # x264's quality: lower is better
PRESET = "veryfast"
# x264's macroblock tree makes rare, random decisions, and gains nothing where a group of pictures is this short.
_X264 = "mbtree=0:rc-lookahead=0:sync-lookahead=0"
_FULL_RANGE = 2  # of luma: 0..255
_GRAY = {"comment": "gray"}  # decoders deliver grey H.264 with three channels

_decoders = threading.local()


@dataclass(frozen=True)
class VideoIndex:
    """The packets of a video in decoding order, and what a decoder must know. Small: 17 bytes per frame."""

    codec: str
    extradata: bytes
    shape: tuple[int, int, int]  # (H, W, C) of a decoded frame
    offsets: np.ndarray  # (n,) int64, bytes into the file
    sizes: np.ndarray  # (n,) int32
    keys: np.ndarray  # (n,) bool: decoding can start here
    shown: np.ndarray  # (n,) int32: number of the frame that the packet holds

    def __len__(self) -> int:
        return len(self.shown)


def encode_video(frames: np.ndarray, fps: int = FPS, gop: int = GOP, crf: int = CRF, preset: str = PRESET) -> bytes:
    """Encode (T, H, W, 1 or 3) uint8 as a sealed H.264 MP4.

    No B-frames; colours as yuv420p, or yuv444p where the size is odd, so that nothing is padded or rescaled; a single
    channel as grey. One encoder thread: equal frames give equal bytes, at least on one machine.
    """
    av = require("av", "data")
    rows, height, width, channels = frames.shape
    source = "gray" if channels == 1 else "rgb24"
    target = "gray" if channels == 1 else "yuv444p" if height % 2 or width % 2 else "yuv420p"
    data = io.BytesIO()
    options = {"crf": str(crf), "preset": preset, "threads": "1", "bf": "0", "x264-params": _X264}
    convert = av.video.reformatter.VideoReformatter()
    one_thread = _one_thread()
    try:
        with av.open(data, "w", format="mp4") as container:
            stream = container.add_stream("libx264", rate=fps, options=options)
            stream.pix_fmt, stream.width, stream.height = target, width, height
            stream.codec_context.gop_size = gop
            if channels == 1:
                container.metadata.update(_GRAY)
                stream.codec_context.color_range = _FULL_RANGE
            for image in frames:
                frame = av.VideoFrame.from_ndarray(image[..., 0] if channels == 1 else image, format=source)
                if channels == 1:
                    frame.color_range = _FULL_RANGE
                else:
                    frame = convert.reformat(frame, format=target, **one_thread)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    except av.FFmpegError as error:
        raise ContractError(f"{rows} frames of {height} x {width} x {channels} cannot be encoded: {error}") from error
    # An unused box whose content is the seal.
    return seal(data.getvalue() + (8 + SEAL_BYTES).to_bytes(4, "big") + b"free")


def index_video(data: bytes) -> VideoIndex:
    """Look through a whole MP4 file. Raises ContractError when it is damaged or holds no video."""
    av = require("av", "data")
    check_seal(data)
    try:
        with av.open(io.BytesIO(data), format="mp4", metadata_errors="replace") as container:
            stream = container.streams.video[0]
            packets = [packet for packet in container.demux(stream) if packet.size and packet.pts is not None]
            context = stream.codec_context
            if context is None:
                raise ValueError("its codec is unknown")
            channels = 1 if _GRAY.items() <= container.metadata.items() else 3
            shape, codec, extradata = (context.height, context.width, channels), context.name, context.extradata
            found = [(packet.pts, packet.pos, packet.size, packet.is_keyframe) for packet in packets]
    except (av.FFmpegError, IndexError, ValueError, MemoryError) as error:
        raise ContractError(f"cannot be read as an MP4 video: {error}") from error
    times, offsets, sizes, keys = np.array(found, dtype=np.int64).reshape(-1, 4).T
    shown = np.empty(len(found), dtype=np.int32)
    shown[np.argsort(times, kind="stable")] = np.arange(len(found))
    return VideoIndex(
        codec, bytes(extradata or b""), shape, offsets.copy(), sizes.astype(np.int32), keys.astype(bool), shown
    )


def decode_frames(
    index: VideoIndex, read: Callable[[int, int], bytes], frames: np.ndarray, store: Callable[[int, np.ndarray], None]
) -> None:
    """Decode the frames numbered `frames` (n,), each of them once.

    read: `read(offset, size)` returns bytes of the file.
    store: called as `store(frame, image)` with (H, W, C) that is valid during the call only.

    Raises ContractError when the video has no such frame or is damaged.
    """
    wanted = set(frames.tolist())
    if wanted and not 0 <= min(wanted) <= max(wanted) < len(index):
        raise ContractError(f"holds {len(index)} frames, frame {max(wanted)} was expected")
    av = require("av", "data")
    try:
        for first, last in _runs(index, frames):
            _decode_run(index, read, first, last, wanted, store)
    except (av.FFmpegError, ValueError) as error:
        if isinstance(error, ContractError):
            raise
        raise ContractError(f"cannot be decoded: {error}") from error
    if wanted:
        raise ContractError(f"cannot be decoded: frames {sorted(wanted)} do not come out")


def _runs(index: VideoIndex, frames: np.ndarray) -> list[tuple[int, int]]:
    """The packets to decode, as [first, last] stretches that begin with a key frame."""
    place = np.empty(len(index), dtype=np.int64)
    place[index.shown] = np.arange(len(index))
    starts = np.flatnonzero(index.keys)
    runs: list[tuple[int, int]] = []
    for last in np.unique(place[frames]).tolist():
        if runs and last <= runs[-1][1]:
            continue
        # Frames shown before a key frame but stored after it may need the group before.
        usable = starts[(starts <= last) & (index.shown[starts] <= index.shown[last])]
        first = int(usable[-1]) if len(usable) else 0
        if runs and first <= runs[-1][1] + 1:
            runs[-1] = runs[-1][0], last
        else:
            runs.append((first, last))
    return runs


def _decode_run(
    index: VideoIndex,
    read: Callable[[int, int], bytes],
    first: int,
    last: int,
    wanted: set[int],
    store: Callable[[int, np.ndarray], None],
) -> None:
    av = require("av", "data")
    decoder, reformatter = _decoder(index)
    start = int(index.offsets[first : last + 1].min())
    stop = int((index.offsets + index.sizes)[first : last + 1].max())
    data = memoryview(read(start, stop - start))

    def take(pictures: list[Any]) -> None:
        for picture in pictures:
            if picture.pts in wanted:
                if picture.is_corrupt:
                    raise ContractError(f"frame {picture.pts} is damaged")
                store(picture.pts, _as_array(picture, reformatter, index.shape))
                wanted.remove(picture.pts)

    try:
        for i in range(first, last + 1):
            offset = int(index.offsets[i]) - start
            packet = av.Packet(data[offset : offset + int(index.sizes[i])])
            packet.pts = int(index.shown[i])
            take(decoder.decode(packet))
        take(decoder.decode(None))
    finally:
        decoder.flush_buffers()


def _decoder(index: VideoIndex) -> tuple[Any, Any]:
    """This thread's decoder for videos like this one, and the converter of its pictures."""
    av = require("av", "data")
    cache: dict[Any, tuple[Any, Any]] = _decoders.__dict__
    key = os.getpid(), index.codec, index.extradata  # a forked child has no use for its parent's
    if key not in cache:
        if len(cache) >= 8:
            cache.clear()
        context = av.CodecContext.create(index.codec, "r")
        context.extradata = index.extradata
        context.thread_count = 1  # no frames in flight: a frame comes out when its packet went in
        cache[key] = context, av.video.reformatter.VideoReformatter()
    return cache[key]


def _as_array(picture: Any, reformatter: Any, shape: tuple[int, int, int]) -> np.ndarray:
    """The picture as (H, W, C), a view of decoder memory."""
    height, width, channels = shape
    if (picture.height, picture.width) != (height, width):
        raise ContractError(f"expected frames of {height} x {width}, found {picture.height} x {picture.width}")
    plane = picture if channels == 1 else reformatter.reformat(picture, format="rgb24", **_one_thread())
    plane = plane.planes[0]
    rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
    return rows[:height, : width * channels].reshape(height, width, channels)


@lru_cache(maxsize=1)
def _one_thread() -> dict[str, int]:
    """Keeps colour conversion in the calling thread: frames are small, and FFmpeg's threads do not survive a fork."""
    av = require("av", "data")
    frame = av.VideoFrame(2, 2, "gray")
    try:
        av.video.reformatter.VideoReformatter().reformat(frame, format="rgb24", threads=1)
    except TypeError:  # before PyAV could use several
        return {}
    return {"threads": 1}
