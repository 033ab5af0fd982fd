"""Videos of a running world and of recorded episodes, and the file a dataset is recorded to."""

from __future__ import annotations

import contextlib
import operator
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from stable_worldmodel.errors import ContractError, MissingKeyError, require
from stable_worldmodel.pool.arguments import options_per_env, seeds_per_env
from stable_worldmodel.protocols import EpisodeReader
from stable_worldmodel.utils.interrupts import InterruptGuard
from stable_worldmodel.world.episode import newest
from stable_worldmodel.world.evaluation import check_count
from stable_worldmodel.world.stepper import Stepper
from stable_worldmodel.world.video import (
    EXTENSIONS,
    VideoWriter,
    image_views,
    info_images,
    stack_views,
    write_video,
)
from stable_worldmodel.wrappers.images import is_image

_BLOCK = 32  # rows read from a dataset at once


def dataset_file(name: str | os.PathLike[str], cache_dir: str | os.PathLike[str] | None) -> Path:
    """`<root>/<name>.h5`, its folder created; a `.h5` that `name` has already is not doubled."""
    from stable_worldmodel.data import ensure_dir_exists, new_dataset_path

    path = new_dataset_path(os.fspath(name).removesuffix(".h5"), cache_dir)
    ensure_dir_exists(path.parent)
    return path


def record_video(
    stepper: Stepper,
    directory: str | Path,
    max_steps: int,
    fps: int,
    viewname: str | Sequence[str],
    seed: Any,
    options: Any,
    extension: str,
) -> None:
    """Film all envs from a full reset until `max_steps` or the first end, into `<directory>/env_<i>.<extension>`."""
    require("av", extra="report")
    check_count("max_steps", max_steps)
    check_count("fps", fps)
    if extension not in EXTENSIONS:
        raise ContractError(f"extension={extension!r}: expected one of {EXTENSIONS}")
    num_envs = stepper.pool.num_envs
    seeds, env_options = seeds_per_env(seed, num_envs), options_per_env(options, num_envs)
    with contextlib.ExitStack() as files, InterruptGuard() as guard:
        stepper.reset(seeds, env_options)
        keys = _with_goal(image_views(viewname, info_images(stepper.infos)), info_images(stepper.infos))
        videos = [
            files.enter_context(VideoWriter(Path(directory) / f"env_{env}.{extension}", fps)) for env in range(num_envs)
        ]
        _film(stepper, videos, keys)
        for _ in range(max_steps):
            guard.check()
            stepper.step()
            _film(stepper, videos, keys)
            if (stepper.terminateds | stepper.truncateds).any():
                break


def _film(stepper: Stepper, videos: Sequence[VideoWriter], keys: Sequence[str]) -> None:
    for env, video in enumerate(videos):
        video.write(stack_views([newest(stepper.infos[key], env) for key in keys]))


def _with_goal(views: list[str], images: Sequence[str]) -> list[str]:
    """Views with the goal below, if it is an image."""
    return [*views, "goal"] if "goal" in images and "goal" not in views else views


def record_video_from_dataset(
    video_path: str | Path,
    dataset: Any,
    episode_idx: int | Sequence[int],
    max_steps: int = 500,
    fps: int = 30,
    viewname: str | Sequence[str] = "pixels",
    *,
    num_proc: int = 4,
    cache_dir: str | os.PathLike[str] | None = None,
) -> None:
    """Write recorded episodes as `<video_path>/episode_<i>.mp4`, at most `max_steps` rows of each.

    Args:
        dataset: an open dataset, or its name or path (looked up in `cache_dir`, or the cache root).
        episode_idx: one episode or several.
        viewname: image columns, shown one below the other with `goal` last, if the dataset has it. `pixels` stands for
            all `pixels.<view>` where there is no column of that name.
        num_proc: episodes encoded at the same time.

    Raises:
        NotFoundError: no such dataset; names the places that were searched.
        MissingKeyError: no such episode or image column; before anything is written.
    """
    require("av", extra="report")
    for name, value in (("max_steps", max_steps), ("fps", fps), ("num_proc", num_proc)):
        check_count(name, value)
    if isinstance(dataset, (str, os.PathLike)):
        from stable_worldmodel.data import load_dataset

        dataset = load_dataset(dataset, cache_dir)
    episodes = _episode_list(episode_idx, len(dataset.lengths))
    columns = _image_columns(dataset, episodes, viewname)
    reading = threading.Lock()  # a reader need not be thread-safe

    def write(episode: int) -> None:
        rows = min(int(dataset.lengths[episode]), max_steps)
        path = Path(video_path) / f"episode_{episode}.mp4"
        write_video(path, _dataset_frames(dataset, episode, rows, columns, reading), fps)

    with ThreadPoolExecutor(min(num_proc, max(1, len(episodes)))) as encoders:
        try:
            for _ in encoders.map(write, episodes):
                pass
        except BaseException:
            encoders.shutdown(wait=False, cancel_futures=True)
            raise


def _episode_list(episode_idx: int | Sequence[int], num_episodes: int) -> list[int]:
    try:
        chosen = [operator.index(item) for item in np.atleast_1d(np.asarray(episode_idx))]
    except TypeError:
        raise ContractError(f"episode_idx={episode_idx!r}: expected an integer or a list of them") from None
    unknown = [episode for episode in chosen if not 0 <= episode < num_episodes]
    if unknown:
        raise MissingKeyError(f"no episodes {unknown}; the dataset has 0..{num_episodes - 1}")
    return list(dict.fromkeys(chosen))


def _image_columns(dataset: EpisodeReader, episodes: Sequence[int], viewname: str | Sequence[str]) -> list[str]:
    """Columns to show. Which of them are images is seen from the first row there is."""
    for episode in episodes:
        if dataset.lengths[episode]:
            row = dataset.read_rows(episode, 0, 1)
            images = [key for key, value in row.items() if is_image(np.asarray(value)[0])]
            return _with_goal(image_views(viewname, images), images)
    return []


def _dataset_frames(
    dataset: EpisodeReader, episode: int, rows: int, columns: Sequence[str], reading: threading.Lock
) -> Iterator[np.ndarray]:
    for start in range(0, rows, _BLOCK):
        with reading:
            block = dataset.read_rows(episode, start, min(start + _BLOCK, rows), columns)
        for images in zip(*(block[key] for key in columns), strict=True):
            yield stack_views(images)
