"""How collection scales with workers, what Ray costs, and how well a small model predicts the time of large runs.

    python benchmarks/scaling.py [--env TwoRoom-v1] [--policy expert] [--size 64] [--episodes 96] [--repeats 3]
                                 [--workers 1 2 4 8] [--no-ray] [--seconds 1.2]

Prints JSON. Each of `points` is a number of local workers that record `--episodes` each, in four shards a worker:
episodes per second on the clock (`rate`), per second of processor time (`cpu_rate`), and how many cores the workers
were given (`cores_got`), which on a machine that others use are less than there are. 0 workers is one World in this
process. `predicted` is the capacity model's rate on the cores that were given, `error` what that is too much.

`ray` compares the two executors by jobs of `--seconds` each, after the workers have started: seconds of Ray over
seconds of local processes, less 1. Jobs that `sleep` show what handing out costs, whatever else the machine does;
those that `work` also what Ray's own processes take from the cores.

`hours` are the model's for 10^6 and 10^8 episodes, on 2, 64 and 1024 cores; see docs/scaling.md. The throughput of
the merge is measured here, on eight shards; what the file system takes from all writers is `--write`.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stable_worldmodel.cluster.executors import open_executor
from stable_worldmodel.cluster.merge import merge_shards
from stable_worldmodel.envs import resolve_id
from stable_worldmodel.policy.named import make_policy
from stable_worldmodel.pool.process import cpu_count
from stable_worldmodel.world import World


def record(job: dict[str, Any]) -> tuple[float, float, float]:
    """Record a shard; returns when that began and ended, and its seconds of processor time."""
    begun, used = time.time(), time.process_time()
    env = resolve_id(job["env"])
    with World(env, 8, (job["size"], job["size"]), backend="sync", verbose=0) as world:
        world.set_policy(make_policy(job["policy"], env, seed=0))
        world.collect(job["path"], job["episodes"], seed=job["seed"], mode="overwrite", progress=False)
    return begun, time.time(), time.process_time() - used


def point(folder: Path, given: argparse.Namespace, workers: int) -> dict[str, float]:
    """What that many workers record per second, and the bytes of an episode; see above."""
    each, count = given.episodes // 4, 4 * max(1, workers)
    same = {"env": given.env, "policy": given.policy, "size": given.size, "episodes": each}
    jobs = [{**same, "seed": k * each, "path": str(folder / f"{k}.h5")} for k in range(count)]
    begun, ended, used = zip(*open_executor("local", workers=workers)(record, jobs), strict=True)
    seconds, total = max(ended) - min(begun), each * count
    size = sum((folder / f"{k}.h5").stat().st_size for k in range(count)) / total
    return {"rate": total / seconds, "cpu_rate": total / sum(used), "cores_got": sum(used) / seconds, "bytes": size}


def work(seconds: float) -> float:
    """Keep one core busy for that long, as an episode of that length does; returns when it ended."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        sum(range(1000))
    return time.time()


def sleep(seconds: float) -> float:
    """Take that long whatever else the machine does; returns when it ended."""
    time.sleep(seconds)
    return time.time()


def ray_overhead(seconds: float, repeats: int) -> dict[str, Any]:
    """Ray beside local processes, on jobs of `seconds`, from the first answers to the last one."""
    import ray

    cores, jobs = cpu_count(), [seconds] * (6 * cpu_count())
    ray.init(
        address="local",
        num_cpus=cores,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        object_store_memory=1 << 27,
        _system_config={"worker_niceness": 0},  # 15 by default, with which others on a shared machine come first
    )
    found: dict[str, Any] = {"job_s": seconds, "jobs": len(jobs)}
    try:
        for function in (sleep, work):
            times: dict[str, list[float]] = {"local": [], "ray": []}
            for _ in range(repeats):
                for name, taken in times.items():
                    ends = sorted(open_executor(name, workers=cores)(function, jobs))
                    taken.append(ends[-1] - ends[cores - 1])
            pairs = [b / a - 1 for a, b in zip(times["local"], times["ray"], strict=True)]
            found[function.__name__] = {**times, "overhead": statistics.median(pairs)}
    finally:
        ray.shutdown()
    return found


def merge_rate(folder: Path, given: argparse.Namespace) -> float:
    """Bytes per second of joining the shards of one collection."""
    env, path, shards = resolve_id(given.env), folder / "m.h5", 8
    with World(env, 8, (given.size, given.size), backend="sync", verbose=0) as world:
        world.set_policy(make_policy(given.policy, env, seed=0))
        for number in range(1, shards + 1):
            world.collect(path, given.episodes, seed=0, shards=shards, shard=number, progress=False)
    begun = time.perf_counter()
    merge_shards(path)
    return path.stat().st_size / (time.perf_counter() - begun)


def hours(episodes: float, cores: int, model: dict[str, float]) -> float:
    """The capacity model."""
    simulate = episodes / (cores * model["core_rate"] * model["efficiency"])
    write = episodes * model["bytes_per_episode"] / model["write_bytes_per_s"]
    merge = episodes * model["bytes_per_episode"] / model["merge_bytes_per_s"]
    return (max(simulate, write) + merge) / 3600


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """All points, the model made of them, and what it says."""
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        folder = Path(name)
        turns = [{w: point(folder, given, w) for w in (0, *given.workers)} for _ in range(given.repeats)]
        merge = merge_rate(folder, given)
    points = {
        w: {key: statistics.median(turn[w][key] for turn in turns) for key in turns[0][w]} for w in (0, *given.workers)
    }
    full = max((w for w in given.workers if w <= cpu_count()), default=given.workers[0])
    model = {
        "core_rate": points[0]["cpu_rate"],
        "efficiency": statistics.median(turn[full]["cpu_rate"] / turn[0]["cpu_rate"] for turn in turns),
        "bytes_per_episode": points[0]["bytes"],
        "write_bytes_per_s": given.write,
        "merge_bytes_per_s": given.merge or merge,
    }
    for w, found in points.items():
        found["predicted"] = model["core_rate"] * (model["efficiency"] if w else 1) * found["cores_got"]
        found["error"] = found["predicted"] / found["rate"] - 1
    return {
        "env": given.env,
        "policy": given.policy,
        "size": given.size,
        "cores": cpu_count(),
        "points": points,
        "merge_measured_bytes_per_s": merge,
        "model": model,
        "hours": {f"{n:.0e}": {c: hours(n, c, model) for c in (2, 64, 1024)} for n in (1e6, 1e8)},
    }


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="TwoRoom-v1")
    parser.add_argument("--policy", default="expert")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--episodes", type=int, default=96, help="of each worker")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--seconds", type=float, default=1.2, help="of a job in the comparison with Ray")
    parser.add_argument("--write", type=float, default=500e6, help="bytes per second that the shared storage takes")
    parser.add_argument("--merge", type=float, help="bytes per second of a merge, in place of what is measured")
    parser.add_argument("--no-ray", action="store_true")
    parser.add_argument("--folder", help="where to write; default: that of temporary files")
    given = parser.parse_args(words)
    found = measure(given)
    if not given.no_ray:
        found["ray"] = ray_overhead(given.seconds, given.repeats)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
