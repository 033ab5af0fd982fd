"""Collection in shards: one of them by this World, or all of them by many, merged when they are done."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from stable_worldmodel.cluster.merge import discard_leftovers, finish_merge, merge_shards
from stable_worldmodel.cluster.remote import Store, is_remote
from stable_worldmodel.cluster.shards import STAGING_OPTIONS, ShardedRun, check_shards, shards_folder
from stable_worldmodel.cluster.worlds import pack_world, unpack_world
from stable_worldmodel.data.cache import PathLike
from stable_worldmodel.data.journal import journal_path
from stable_worldmodel.data.registry import load_dataset, writer_target
from stable_worldmodel.errors import ContractError
from stable_worldmodel.protocols import Executor
from stable_worldmodel.utils.files import write_atomically
from stable_worldmodel.utils.progress import Progress, ProgressTask, open_progress
from stable_worldmodel.world import World
from stable_worldmodel.world.collect import COLLECT_MODES, check_same_run, open_target, record, run_metadata
from stable_worldmodel.world.evaluation import check_count
from stable_worldmodel.world.identity import describe

logger = logging.getLogger(__name__)

DEFAULT_SHARDS = 64  # or as many as there are episodes
INLINE_BYTES = 1 << 20  # of a World with its policy; a larger one lies in a file that all workers read
WORLD_FILE = "world.pkl"


@dataclass(frozen=True)
class Request:
    """What `World.collect` was asked for; see there."""

    path: PathLike
    episodes: int
    seed: int | None
    options: Any = None
    format: str | None = None
    mode: str = "append"
    shards: int | None = None
    writer_options: Mapping[str, Any] = field(default_factory=dict)
    described: Mapping[str, Any] | None = None  # metadata by whoever sent this; functions look different once sent

    def __post_init__(self) -> None:
        check_count("episodes", self.episodes)
        if self.mode not in COLLECT_MODES:
            raise ContractError(f"mode={self.mode!r}: expected one of {COLLECT_MODES}")
        if self.seed is None:
            raise ContractError("seed=None: shards need a seed, which makes an episode a function of its number")
        if self.shards is not None:
            check_shards(self.shards, self.episodes)

    def begin(self, world: World) -> tuple[ShardedRun, dict[str, Any]] | None:
        """Write the run down or join it: the run, and the metadata of its dataset. None when nothing is left to do."""
        metadata = run_metadata(world.stepper, world.spec(), self.seed, self.options)
        if self.described is not None:
            metadata = {**self.described, "versions": metadata["versions"]}
        target = writer_target(self.path, self.format)[1].expanduser().resolve()
        discard_leftovers(target)
        known = shards_folder(target).is_dir()
        if not known and self._is_done(target, metadata):
            return None
        what = {key: metadata[key] for key in ("env", "policy", "seed", "options")}
        what["writer"] = describe(dict(self.writer_options))
        run = ShardedRun.begin(self.path, self.format, self.episodes, self.shards or self._default(target), what)
        if known and (finish_merge(run) or self._is_done(target, metadata)):
            return None
        return run, metadata

    def _default(self, target: Path) -> int:
        if shards_folder(target).is_dir():
            return ShardedRun.open(target).shards
        return min(DEFAULT_SHARDS, self.episodes)

    def _is_done(self, target: Path, metadata: dict[str, Any]) -> bool:
        """Whether the dataset is there and complete. Raises when there is one that this run may not replace."""
        if not target.exists() or self.mode == "overwrite":
            return False
        if self.mode != "resume":
            raise FileExistsError(
                f"{target} exists; shards become a new dataset: choose another path, or mode 'overwrite' or 'resume'"
            )
        dataset = load_dataset(target)
        check_same_run(str(target), dict(dataset.metadata), metadata)
        if dataset.num_episodes < self.episodes:
            raise ContractError(
                f"{target} has {dataset.num_episodes} of {self.episodes} episodes, and was recorded without shards; "
                "resume it without them"
            )
        return True

    def options_of(self, span: range, num_envs: int) -> Any:
        """The reset options as a Rollout of the episodes `span` takes them."""
        if not isinstance(self.options, (list, tuple)):
            return self.options
        if len(self.options) not in (num_envs, self.episodes):
            raise ContractError(
                f"options has {len(self.options)} items: expected one per env ({num_envs}) or per episode "
                f"({self.episodes})"
            )
        return [self.options[k % len(self.options)] for k in range(span.stop)]


def collect(
    world: World,
    request: Request,
    shard: int | None,
    cluster: str | Executor | None,
    options: Mapping[str, Any] | None,
    progress: bool | Progress,
) -> None:
    """Do what `World.collect` was asked for: one shard here, or all of them by an executor."""
    if (shard is None) == (cluster is None):
        raise ContractError(
            "shards need either cluster=, where all of them are recorded, or shard=, which one is to be"
        )
    if shard is not None:
        if options is not None:
            raise ContractError("cluster_options belong to cluster=, which was not given")
        collect_shard(world, request, shard, progress)
    elif is_remote(request.path):
        collect_in_store(world, request, executor_of(cluster, options), progress)
    else:
        collect_in_shards(world, request, executor_of(cluster, options), progress)


def collect_shard(world: World, request: Request, number: int, progress: bool | Progress) -> None:
    """Record shard `number`, 1 ... shards, or what is missing of it. A finished one is left alone.

    Raises ContractError when another run is written down at the path, DatasetLockedError while another process records
    the shard.
    """
    if request.shards is None:
        raise ContractError(f"shard={number!r}: also give shards=, the number of them")
    if is_remote(request.path):
        _collect_for_store(world, request, number, progress)
        return
    begun = request.begin(world)
    if begun is None:
        return
    run, metadata = begun
    span, path = run.episodes_of(number), run.path_of(number)
    options = request.options_of(span, world.num_envs)
    if run.is_finished(number):
        return
    settings = STAGING_OPTIONS if run.is_staged else request.writer_options
    metadata = {**metadata, **run.metadata_of(number)}
    with open_target(path, run.shard_format.name, "resume", metadata, settings) as writer:
        if writer.metadata.get("shard") != metadata["shard"] or writer.num_episodes > len(span):
            raise ContractError(f"{path} is no shard of this run: {writer.metadata.get('shard')}")
        missing = range(span.start + writer.num_episodes, span.stop)
        record(world.stepper, writer, missing, request.seed, options, progress, first=span.start)


def collect_in_shards(world: World, request: Request, execute: Executor, progress: bool | Progress) -> None:
    """Record all shards that are not finished, by Worlds like this one, and merge them."""
    begun = request.begin(world)
    if begun is None:
        return
    run, metadata = begun
    request.options_of(range(0), world.num_envs)  # raises here what every worker would
    waiting = [number for number in range(1, run.shards + 1) if not run.is_finished(number)]
    if waiting:
        payload = _payload(pack_world(world), run.folder)
        there = replace(  # from any folder
            request, path=str(run.target), format=run.format.name, shards=run.shards, described=metadata
        )
        jobs = [Job(payload, there, number) for number in waiting]
        with open_progress(progress) as display:
            counter = _Counter(run)
            counter.task = display.task("collect", run.episodes, counter.count())
            for _ in execute(run_shard, jobs, counter.tick):
                counter.tick()
    merge_shards(request.path, format=request.format, overwrite=request.mode == "overwrite", progress=progress)


def collect_in_store(world: World, request: Request, execute: Executor, progress: bool | Progress) -> None:
    """The same where the dataset is to be an object: each worker uploads its shards, and this machine merges them."""
    begun = _begin_in_store(world, request)
    if begun is None:
        return
    store, run, metadata = begun
    request.options_of(range(0), world.num_envs)
    there = replace(request, format=run.format.name, shards=run.shards, described=metadata)
    waiting = [number for number in range(1, run.shards + 1) if not store.has(run, number)]
    packed = pack_world(world)
    with open_progress(progress) as display:
        done = run.episodes - sum(len(run.episodes_of(number)) for number in waiting)
        task = display.task("collect", run.episodes, done)
        for number in execute(run_shard, [Job(packed, there, number) for number in waiting]):
            task.advance(len(run.episodes_of(number)))
    merge_shards(request.path, overwrite=request.mode == "overwrite", progress=progress)


def _collect_for_store(world: World, request: Request, number: int, progress: bool | Progress) -> None:
    """Record a shard on this machine's disk, where a job before may have begun it, and upload it."""
    begun = _begin_in_store(world, request)
    if begun is None:
        return
    store, run, _ = begun
    if not store.has(run, number):
        collect_shard(world, replace(request, path=str(run.target)), number, progress)
        store.put(run, number)
    store.forget(run, number)


def _begin_in_store(world: World, request: Request) -> tuple[Store, ShardedRun, dict[str, Any]] | None:
    """Like `Request.begin`. The run's folder is one on this machine, for this run alone."""
    store = Store(str(request.path))
    metadata = run_metadata(world.stepper, world.spec(), request.seed, request.options)
    if request.described is not None:
        metadata = {**request.described, "versions": metadata["versions"]}
    if store.exists() and not store.is_publishing() and request.mode != "overwrite":
        if request.mode != "resume":
            raise FileExistsError(f"{store.url} exists; choose another path, or mode 'overwrite' or 'resume'")
        dataset = load_dataset(store.url)
        check_same_run(store.url, dict(dataset.metadata), metadata)
        if dataset.num_episodes == request.episodes:
            return None
        raise ContractError(
            f"{store.url} has {dataset.num_episodes} episodes, not {request.episodes}; objects cannot grow: choose "
            "another path, or mode 'overwrite'"
        )
    what = {key: metadata[key] for key in ("env", "policy", "seed", "options")}
    sizes = {"episodes": request.episodes, "shards": request.shards, "writer": describe(dict(request.writer_options))}
    begun = replace(request, path=str(store.staging(what, sizes)), mode="append").begin(world)
    assert begun is not None, "nothing is ever merged in this folder"
    store.join(begun[0])
    return store, *begun


@dataclass(frozen=True)
class Job:
    """One shard, for another process."""

    world: bytes | str  # of `pack_world`, or the path of a file with that
    request: Request
    number: int


def run_shard(job: Job) -> int:
    """Record a shard; returns its number. Once or twice is the same."""
    world = unpack_world(Path(job.world).read_bytes() if isinstance(job.world, str) else job.world)
    with world:
        collect_shard(world, job.request, job.number, progress=False)
    return job.number


def _payload(data: bytes, folder: Path) -> bytes | str:
    return data if len(data) <= INLINE_BYTES else str(write_atomically(folder / WORLD_FILE, data))


class _Counter:
    """Counts the complete episodes of all shards by the lines of their journals."""

    task: ProgressTask

    def __init__(self, run: ShardedRun):
        self._journals = [journal_path(run.path_of(number)) for number in range(1, run.shards + 1)]
        self._read = [0] * run.shards  # bytes
        self._lines = [0] * run.shards
        self._reported = 0

    def count(self) -> int:
        for i, journal in enumerate(self._journals):
            try:
                with journal.open("rb") as file:
                    file.seek(self._read[i])
                    new = file.read()
            except FileNotFoundError:  # not begun
                continue
            self._read[i] += len(new)
            self._lines[i] += new.count(b"\n")
        self._reported = sum(max(0, lines - 1) for lines in self._lines)  # the first line is the header
        return self._reported

    def tick(self) -> None:
        """Report what is new."""
        before = self._reported
        self.task.advance(self.count() - before)


def executor_of(cluster: str | Executor | None, options: Mapping[str, Any] | None) -> Executor:
    """The executor that `cluster=` and `cluster_options=` mean."""
    from stable_worldmodel.cluster.executors import open_executor

    if isinstance(cluster, str):
        return open_executor(cluster, **(options or {}))
    if not callable(cluster):
        raise ContractError(f"cluster={cluster!r}: expected 'local', 'ray', 'slurm' or an Executor")
    if options:
        raise ContractError("cluster_options belong to the name of an executor; this one is open already")
    return cluster
