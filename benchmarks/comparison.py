"""Models of the preset `small` on TwoRoom in one table: trained on the same episodes, scored on the same pairs.

usage: python benchmarks/comparison.py [--out runs/comparison] [--models lewm pldm …] [--seeds 0 1 2] [--pairs 200]
Every step is a command of `swm`, printed before it runs; what a folder has already is not done again. Prints JSON and
writes it to results.json.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

SWM = [sys.executable, "-m", "stable_worldmodel.cli"]
# What differs from the preset `small`; docs/models says why where a model needs it.
TRAINING: dict[str, list[str]] = {
    **{name: [] for name in ("lewm", "pldm", "gcbc", "gcivl", "gciql", "hilp", "prejepa", "frame", "dummy")},
    # TwoRoom's reward is always 0: goals are drawn, or the distance of latents is what a plan costs.
    "tdmpc2": ["preset=goals"],
    "dreamer": ["model.behaviour=false", "frameskip=5", "num_steps=8"],
}
# Models that plan in images or patches would take a CPU hours for the 300 samples and 30 iterations of the others.
_FEW = ["--solver", "num_samples=32", "--solver", "n_steps=4", "--solver", "topk=4"]
SCORING = {"frame": _FEW, "prejepa": _FEW}
PUBLISHED = ["--episodes", "50", "--seed", "42"]
COMMON = ["--goal-offset", "25", "--budget", "50", "--json"]


def swm(*arguments: str) -> str:
    """Run one command and return what it prints."""
    print("$ swm " + shlex.join(arguments), file=sys.stderr, flush=True)
    return subprocess.run([*SWM, *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout


def collect(out: Path, episodes: int) -> Path:
    data = out / "rooms.h5"
    noise = ["-p", "action_noise=2.0", "-p", "action_repeat_prob=0.05"]
    swm("collect", "TwoRoom-v1", "--policy", "expert", *noise, "--episodes", str(episodes), "--out", str(data))
    return data


def train(model: str, seed: int, data: Path, out: Path) -> float:
    """Train into `out` unless that was done; returns the seconds it took."""
    seconds = out / "seconds"
    if not seconds.exists():
        begun = time.perf_counter()
        settings = ["val_fraction=0.15", f"seed={seed}", *TRAINING[model]]
        if not any(setting.startswith("preset=") for setting in settings):
            settings.insert(0, "preset=small")
        swm("train", model, f"data={data}", *settings, f"out={out}")
        seconds.write_text(str(time.perf_counter() - begun))
    return float(seconds.read_text())


def losses(out: Path) -> tuple[float, float]:
    """Training loss at the first and at the last logged step."""
    lines = (out / "metrics.jsonl").read_text().splitlines()
    logged = [row["train/loss"] for row in map(json.loads, lines) if "train/loss" in row]
    return logged[0], logged[-1]


def score(subjects: list[str], out: Path, *options: str) -> list[dict[str, Any]]:
    """Rows of `swm eval`, one per subject."""
    file = out / "rows.json"
    if not file.exists():
        rows = swm("eval", *subjects, *COMMON, *options, "--out", str(out))
        file.write_text(rows)
    return json.loads(file.read_text())


def compare(model: str, seed: int, data: Path, out: Path, pairs: int) -> dict[str, Any]:
    """One model, trained and scored."""
    run = out / f"{model}-{seed}"
    seconds = train(model, seed, data, run)
    options = SCORING.get(model, [])
    held_out = score([str(run)], out / f"eval-{model}-{seed}", "--episodes", str(pairs), *options)
    published = score([str(run)], out / f"published-{model}-{seed}", *PUBLISHED, *options)
    row = {"model": model, "seed": seed, "train_s": round(seconds), "losses": losses(run)}
    return {**row, "held_out": held_out, "published": published}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/comparison"))
    parser.add_argument("--models", nargs="+", default=list(TRAINING), choices=list(TRAINING))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--episodes", type=int, default=1000, help="recorded")
    parser.add_argument("--pairs", type=int, default=200, help="of start and goal")
    arguments = parser.parse_args()
    out = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    data = collect(out, arguments.episodes)
    rows = [compare(model, seed, data, out, arguments.pairs) for seed in arguments.seeds for model in arguments.models]
    leader = out / f"{arguments.models[0]}-{arguments.seeds[0]}"
    around = [str(leader), "oracle", "--floors", "--episodes", str(arguments.pairs)]
    rows.append({"model": "floors and ceiling", "held_out": score(around, out / "eval-floors")})
    (out / "results.json").write_text(json.dumps(rows, indent=1))
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
