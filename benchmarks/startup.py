"""Time from a cold interpreter to something useful. Prints JSON; exits 1 when a limit is missed."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time

RUNS = 7

# Name -> (arguments of the interpreter, limit in seconds). `empty` is what every other one pays for Python itself.
CASES: dict[str, tuple[list[str], float | None]] = {
    "empty": (["-c", "pass"], None),
    "import": (["-c", "import stable_worldmodel"], 0.3),
    "help": (["-m", "stable_worldmodel.cli", "--help"], 0.5),
    "first_frame": (
        [
            "-c",
            "import stable_worldmodel as swm;"
            "world = swm.World('swm/TwoRoom-v1', num_envs=4, image_shape=(64, 64));"
            "world.reset(seed=0);"
            "assert world.infos['pixels'].any()",
        ],
        1.2,
    ),
}


def seconds(arguments: list[str]) -> float:
    """Wall time of one fresh interpreter."""
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> int:
    results = {}
    for name, (arguments, limit) in CASES.items():
        seconds(arguments)  # compiles bytecode and fills the disk cache
        times = sorted(seconds(arguments) for _ in range(RUNS))
        median = statistics.median(times)
        results[name] = {"best_s": round(times[0], 3), "median_s": round(median, 3), "limit_s": limit}
    for result in results.values():
        result["over_empty"] = round(result["median_s"] / results["empty"]["median_s"], 2)
    sys.stdout.write(json.dumps(results, indent=2) + "\n")
    return int(any(r["limit_s"] is not None and r["median_s"] > r["limit_s"] for r in results.values()))


if __name__ == "__main__":
    sys.exit(main())
