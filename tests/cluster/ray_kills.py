"""A collection over four Ray nodes whose workers and nodes are killed again and again ends like an undisturbed one.

python tests/cluster/ray_kills.py --kills 200
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import toy_envs

from stable_worldmodel.cluster.executors import open_executor
from stable_worldmodel.data import load_dataset
from stable_worldmodel.policy import RandomPolicy
from stable_worldmodel.world import World

EPISODES, SHARDS = 72, 12  # of one round
NODES = 4
STEP = 0.02  # seconds


class Slow(gym.Wrapper):
    """Takes its time, so that kills find somebody at work."""

    def step(self, action: Any) -> Any:
        time.sleep(STEP)
        return super().step(action)


def collect(path: Path, execute: Any = None) -> None:
    """Record the episodes of one round, in this process or in shards."""
    toy_envs.register()
    spread = {} if execute is None else {"cluster": execute, "shards": SHARDS}
    with World("toy/Walk-v0", 2, (8, 8), backend="sync", pre_wrappers=[Slow], verbose=0) as world:
        world.set_policy(RandomPolicy(seed=0))
        world.collect(path, EPISODES, seed=1000, mode="resume", progress=False, **spread)


def kill_worker(folder: Path, rng: random.Random) -> bool:
    """Kill a process that writes a shard; False if there is none."""
    try:
        locks = sorted(folder.rglob("*.lock"))
        pid = json.loads(rng.choice(locks).read_text())["pid"] if locks else os.getpid()
        if pid == os.getpid():  # which merges
            return False
        os.kill(pid, signal.SIGKILL)
    except (OSError, ValueError):  # it has just ended, or begins; or its folder has just been moved
        return False
    return True


def kill_node(cluster: Any, rng: random.Random) -> None:
    """Kill a node with all that runs there, and start a new one."""
    nodes = [node for node in cluster.list_all_nodes() if not node.head]
    cluster.remove_node(rng.choice(nodes), allow_graceful=False)
    cluster.add_node(num_cpus=1, object_store_memory=80 << 20)


def collect_under_fire(cluster: Any, folder: Path, rng: random.Random, kills: int) -> Counter[str]:
    """One round, with at most `kills` kills at random moments; returns those."""
    execute, killed = open_executor("ray", workers=NODES, retries=100), Counter[str]()
    with ThreadPoolExecutor(1) as thread:  # Ray's nodes can only be started by the main thread
        running = thread.submit(collect, folder / "data.h5", execute)
        while not running.done():
            wait([running], rng.uniform(0.1, 1.2))
            if running.done() or sum(killed.values()) >= kills:
                continue
            if rng.random() < 0.15:
                kill_node(cluster, rng)
                killed["node"] += 1
            elif kill_worker(folder, rng):
                killed["worker"] += 1
        running.result()
    return killed


def open_cluster() -> Any:
    """Four nodes of one core, and a head that runs nothing; the driver is connected."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray
    from ray.cluster_utils import Cluster

    settings = {"health_check_period_ms": 500, "health_check_timeout_ms": 500, "health_check_failure_threshold": 4}
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "object_store_memory": 80 << 20, "_system_config": settings},
    )
    for _ in range(NODES):
        cluster.add_node(num_cpus=1, object_store_memory=80 << 20)
    ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.CRITICAL)
    return cluster


def run(kills: int, folder: Path, seed: int = 0) -> dict[str, Any]:
    """Collect round after round until `kills` kills have been done, compare each with the sequential run, and report.

    Raises AssertionError for a round that differs.
    """
    import ray

    rng, killed, rounds, begun = random.Random(seed), Counter[str](), 0, time.monotonic()
    folder.mkdir(parents=True)
    collect(folder / "alone.h5")
    cluster = open_cluster()
    try:
        while sum(killed.values()) < kills:
            here = folder / f"round-{rounds:03d}"
            here.mkdir()
            killed += collect_under_fire(cluster, here, rng, kills - sum(killed.values()))
            compare(folder / "alone.h5", here / "data.h5")
            rounds += 1
    finally:
        ray.shutdown()
        cluster.shutdown()
    return {"rounds": rounds, **killed, "seconds": round(time.monotonic() - begun, 1)}


def compare(one: Path, other: Path) -> None:
    """Every column of every episode has the same bits."""
    mine, theirs = load_dataset(one), load_dataset(other)
    assert mine.lengths.tolist() == theirs.lengths.tolist()
    assert sorted(mine.columns) == sorted(theirs.columns)
    for episode, length in enumerate(mine.lengths):
        a, b = (dataset.read_rows(episode, 0, int(length)) for dataset in (mine, theirs))
        for name in a:
            np.testing.assert_array_equal(a[name], b[name], err_msg=f"episode {episode}, {name}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        print(json.dumps(run(given.kills, Path(scratch) / "kills", given.seed)))
