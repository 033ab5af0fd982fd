"""What the alignment term of the small LeWM is worth: the quickstart with and without it, on the same data and pairs.

usage: python benchmarks/alignment.py [--out runs/alignment] [--seeds 0 1 2] [--preset small]
Prints one JSON line per (seed, weight).
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

from stable_worldmodel.data import load_dataset
from stable_worldmodel.quickstart import (
    QuickstartConfig,
    collect,
    evaluate,
    held_out_pairs,
    planner,
    train_model,
    training_config,
)
from stable_worldmodel.utils.progress import SilentProgress

WEIGHTS = (0.0, 1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/alignment"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--preset", default="small")
    arguments = parser.parse_args()
    silent = SilentProgress()
    for seed in arguments.seeds:
        config = QuickstartConfig.preset(arguments.preset, out=arguments.out / f"seed_{seed}", seed=seed)
        config.out.mkdir(parents=True, exist_ok=True)
        recording = collect(config, silent)
        dataset = load_dataset(recording)
        settings = training_config(config)
        for weight in WEIGHTS:
            chosen = replace(settings, model=replace(settings.model, alignment_weight=weight))
            trained = train_model(chosen, recording, config.out / f"weight_{weight:g}", silent)
            pairs = held_out_pairs(config, dataset.lengths, trained.split["val"])
            results = evaluate(config, dataset, planner(config, trained.checkpoint), pairs, None, silent)
            low, high = results.interval()
            row = {
                "seed": seed,
                "alignment_weight": weight,
                "success": results["success_rate"],
                "interval": [low, high],
            }
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
