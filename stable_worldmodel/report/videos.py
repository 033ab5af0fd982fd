"""Which videos go into a report, and their thumbnails."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from stable_worldmodel.errors import ContractError, NotFoundError, require
from stable_worldmodel.report.model import Evaluation, Video

_THUMBNAIL = (360, 160)  # most pixels (W, H)
_QUALITY = 75
_WIDE = 2.0  # width / height from which on a thumbnail gets more room


@dataclass(frozen=True)
class Clip:
    """An embedded video: its file and a picture of it as `data:` addresses."""

    video: Video
    source: str
    thumbnail: str
    aspect: float  # width / height


@dataclass(frozen=True)
class Gallery:
    """The clips of one evaluation; `total` counts the videos there are."""

    clips: Sequence[Clip]
    total: int
    folder: str  # where the others lie
    wide: bool = False  # several pictures side by side


def build_galleries(evaluations: Sequence[Evaluation], limit: int) -> list[Gallery]:
    """Embed videos of all evaluations in turn, until `limit` bytes are reached; one gallery per evaluation.

    Raises NotFoundError for a video without a file and ContractError for one that cannot be decoded.
    """
    waiting = [_in_turn(evaluation.videos) for evaluation in evaluations]
    chosen: list[list[Video]] = [[] for _ in evaluations]
    left, open_ones = limit, set(range(len(evaluations)))
    while open_ones:
        for i in sorted(open_ones):
            video = next(waiting[i], None)
            if video is None or (size := _size(video)) > left:
                open_ones.discard(i)
                continue
            left -= size
            chosen[i].append(video)
    return [_gallery(evaluation, videos) for evaluation, videos in zip(evaluations, chosen, strict=True)]


def _in_turn(videos: Sequence[Video]) -> Iterator[Video]:
    """A failure, a success, a failure ... so that few videos show both."""
    kinds = [[v for v in videos if not v.success], [v for v in videos if v.success]]
    for k in range(len(videos)):
        yield from (kind[k] for kind in kinds if k < len(kind))


def _size(video: Video) -> int:
    path = Path(video.path)
    if not path.is_file():
        raise NotFoundError(f"video {str(path)!r} of {video.label!r} does not exist")
    return path.stat().st_size


def _gallery(evaluation: Evaluation, chosen: Sequence[Video]) -> Gallery:
    videos = [video for video in evaluation.videos if video in chosen]  # in the order of the episodes
    folder = str(Path(evaluation.videos[0].path).parent) if evaluation.videos else ""
    clips = [_clip(video) for video in videos]
    return Gallery(clips, len(evaluation.videos), folder, wide=any(clip.aspect > _WIDE for clip in clips))


def _clip(video: Video) -> Clip:
    data = Path(video.path).read_bytes()
    thumbnail, aspect = _thumbnail(video, data)
    return Clip(video, _address("video/mp4", data), _address("image/jpeg", thumbnail), aspect)


def _address(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


def _thumbnail(video: Video, data: bytes) -> tuple[bytes, float]:
    """The first frame as a small JPEG, and width / height of the video."""
    av = require("av", "report")
    try:
        with av.open(io.BytesIO(data)) as container:
            picture = next(container.decode(video=0)).to_image()
    except (av.FFmpegError, IndexError, StopIteration) as error:
        raise ContractError(f"video {str(video.path)!r} of {video.label!r} cannot be decoded: {error}") from error
    aspect = picture.width / picture.height
    picture.thumbnail(_THUMBNAIL)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=_QUALITY)
    return file.getvalue(), aspect
