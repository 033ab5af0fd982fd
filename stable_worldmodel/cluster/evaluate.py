"""Evaluation in shards: contiguous ranges of episodes, each scored by another World like this one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any

from stable_worldmodel.cluster.collect import executor_of
from stable_worldmodel.cluster.worlds import pack_world, unpack_world
from stable_worldmodel.errors import ContractError
from stable_worldmodel.pool.process import cpu_count
from stable_worldmodel.protocols import Executor
from stable_worldmodel.utils.progress import Progress, open_progress
from stable_worldmodel.world import World
from stable_worldmodel.world.episode import Episode
from stable_worldmodel.world.evaluation import EpisodicProtocol, Output, evaluate_episodes, open_partial


@dataclass(frozen=True)
class Part:
    """The episodes [first, stop) of an evaluation."""

    first: int
    stop: int
    protocol: EpisodicProtocol
    reset_mode: str

    @property
    def alone(self) -> EpisodicProtocol:
        """The evaluation of these episodes only, whose numbers begin at 0."""
        whole, options = self.protocol, self.protocol.options
        if isinstance(options, (list, tuple)):
            options = [options[k % len(options)] for k in range(self.first, self.stop)]
        return replace(whole, episodes=self.stop - self.first, seed=(whole.seed or 0) + self.first, options=options)


def evaluate(
    world: World,
    protocol: EpisodicProtocol,
    reset_mode: str,
    cluster: str | Executor | None,
    shards: int | None,
    cluster_options: Mapping[str, Any] | None,
    progress: bool | Progress,
) -> list[Episode]:
    """The episodes that `World.evaluate` would play here, in order, played by the workers of an executor."""
    if cluster is None:
        raise ContractError("shards and cluster_options say how a cluster is used: name one with cluster=...")
    if protocol.seed is None:
        raise ContractError("seed=None: a cluster needs a seed, which makes an episode a function of its number")
    given = protocol.options
    if isinstance(given, (list, tuple)) and len(given) not in (world.num_envs, protocol.episodes):
        raise ContractError(
            f"options has {len(given)} items: expected one per env ({world.num_envs}) or per episode "
            f"({protocol.episodes})"
        )
    execute = executor_of(cluster, cluster_options)
    ranges = split_evenly(protocol.episodes, shards or getattr(execute, "workers", None) or cpu_count())
    parts = [Part(span.start, span.stop, protocol, reset_mode) for span in ranges]
    found: dict[int, list[Episode]] = {}
    with open_progress(progress) as display:
        task = display.task("evaluate", protocol.episodes)
        for first, episodes in execute(partial(run_part, pack_world(world)), parts):
            found[first] = episodes
            task.advance(len(episodes), steps=sum(episode.length for episode in episodes))
    return [episode for span in ranges for episode in found[span.start]]


def run_part(world: bytes, part: Part) -> tuple[int, list[Episode]]:
    """Play one part; returns its first number and its episodes, without their rows."""
    with unpack_world(world) as here:
        alone = part.alone
        played = evaluate_episodes(here.stepper, alone, open_partial(alone, 0), Output(), part.reset_mode)
    return part.first, [replace(episode, index=part.first + episode.index) for episode in played]


def split_evenly(count: int, parts: int) -> list[range]:
    """`count` numbers as consecutive ranges of nearly equal length, at most `parts`, none of them empty."""
    if parts < 1:
        raise ContractError(f"shards={parts}: expected an integer >= 1")
    edges = [part * count // parts for part in range(parts + 1)]
    return [range(start, stop) for start, stop in pairwise(edges) if stop > start]
