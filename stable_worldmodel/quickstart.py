"""The whole loop, small and real: collect in TwoRoom, train LeWM, plan with CEM, compare with chance, report.

Every step is the public API a script would use; `docs/quickstart.md` walks through the same lines. Running the same
configuration again continues where the last run stopped.
"""

from __future__ import annotations

import dataclasses
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stable_worldmodel.errors import ContractError, require
from stable_worldmodel.policy import PlanConfig, RandomPolicy
from stable_worldmodel.utils.files import write_json
from stable_worldmodel.utils.progress import Progress, SilentProgress
from stable_worldmodel.world import Results, World

if TYPE_CHECKING:
    from stable_worldmodel.train import TrainConfig, TrainResult

ENV = "swm/TwoRoom-v1"
LABELS = {"planner": "LeWM + CEM", "random": "Random"}


@dataclass(frozen=True)
class QuickstartConfig:
    """Everything that decides the outcome of a run. Two runs of one config on one machine give the same numbers."""

    out: Path  # folder of the dataset, the checkpoint, the videos and the report
    preset_name: str = "small"
    seed: int = 0
    device: str = "cpu"

    # Collection. Noise and limit are those of the published TwoRoom dataset.
    episodes: int = 1000
    num_envs: int = 16
    image_size: int = 64
    max_episode_steps: int = 100
    action_noise: float = 2.0
    action_repeat: float = 0.05

    # Training.
    model: str = "small"  # a LeWM preset
    epochs: int = 3
    held_out: float = 0.15  # share of episodes never trained on

    # Evaluation: the published protocol, on held-out episodes.
    pairs: int = 150
    goal_offset: int = 25  # env steps between start and goal in the recording
    eval_budget: int = 50  # env steps allowed
    plan: PlanConfig = field(default_factory=lambda: PlanConfig(horizon=5, receding_horizon=5, action_block=5))
    samples: int = 300  # CEM candidates per iteration
    iterations: int = 10  # CEM iterations
    elites: int = 30
    videos: int = 8  # rollouts shown in the report

    def __post_init__(self) -> None:
        for name in ("episodes", "epochs", "pairs", "num_envs", "image_size", "goal_offset", "eval_budget"):
            if getattr(self, name) < 1:
                raise ContractError(f"{name}={getattr(self, name)}: expected an integer >= 1")
        if self.goal_offset >= self.max_episode_steps:
            raise ContractError(
                f"goal_offset={self.goal_offset}: expected less than max_episode_steps ({self.max_episode_steps})"
            )

    @classmethod
    def preset(cls, name: str, **overrides: Any) -> QuickstartConfig:
        """The preset `tiny` (about two minutes, for CI) or `small` (the default), with single values replaced."""
        if name not in PRESETS:
            raise ContractError(f"preset {name!r}: expected one of {sorted(PRESETS)}")
        return cls(**{"preset_name": name, **PRESETS[name], **overrides})

    def to_dict(self) -> dict[str, Any]:
        """JSON-able values."""
        return {**dataclasses.asdict(self), "out": str(self.out)}


PRESETS: dict[str, dict[str, Any]] = {
    "small": {},
    "tiny": {"episodes": 300, "model": "tiny", "epochs": 8, "pairs": 100, "held_out": 0.3, "videos": 4},
}


@dataclass(frozen=True)
class QuickstartResult:
    """Where the report is, and the table printed at the end: one row per policy."""

    table: list[dict[str, Any]]
    report_path: Path
    results_path: Path
    results: dict[str, Results]


class Timings(dict):
    """Seconds per stage."""

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self[stage] = round(time.perf_counter() - start, 2)


def run(config: QuickstartConfig, progress: Progress | None = None) -> QuickstartResult:
    """Run all five steps and write `report.html` and `results.json` into `config.out`."""
    from stable_worldmodel.data import load_dataset, split_episodes

    progress = progress or SilentProgress()
    timings = Timings()
    for package in ("accelerate", "av", "jinja2", "matplotlib"):  # needed only after minutes of work
        require(package)
    check_device(config.device)
    config.out.mkdir(parents=True, exist_ok=True)
    with timings.measure("collect"):
        progress.stage("1/4 Collecting expert episodes")
        recording = collect(config, progress)
    dataset = load_dataset(recording)
    # The split that training will make; a dataset without usable pairs must fail before it is trained on.
    fractions = {"train": 1 - config.held_out, "val": config.held_out}
    held_out_pairs(config, dataset.lengths, split_episodes(dataset.num_episodes, fractions, config.seed)["val"])
    with timings.measure("train"):
        progress.stage("2/4 Training the world model")
        trained = train_model(training_config(config), recording, config.out / "model", progress)
    pairs = held_out_pairs(config, dataset.lengths, trained.split["val"])
    results: dict[str, Results] = {}
    for name in ("planner", "random"):
        with timings.measure(f"evaluate {name}"):
            progress.stage(f"3/4 Evaluating: {name}")
            policy = RandomPolicy(seed=config.seed) if name == "random" else planner(config, trained.checkpoint)
            video = config.out / "videos" if name == "planner" else None
            results[name] = evaluate(config, dataset, policy, pairs, video, progress)
    progress.stage("4/4 Writing the report")
    return write_outputs(config, trained, results, timings)


def check_device(name: str) -> None:
    """ContractError unless torch knows the device and can use it here."""
    torch = require("torch")
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:  # torch raises either, by kind of device
        reason = str(error).splitlines()[0]
        raise ContractError(f"device {name!r} cannot be used: {reason}") from error


def collect(config: QuickstartConfig, progress: Progress) -> Path:
    """Record `config.episodes` expert episodes, or those still missing; returns the file."""
    from stable_worldmodel.envs.two_room import ExpertPolicy

    path = config.out / "dataset.h5"
    with make_world(config, config.num_envs, config.max_episode_steps) as world:
        world.set_policy(ExpertPolicy(config.action_noise, config.action_repeat, seed=config.seed))
        world.collect(path, config.episodes, seed=config.seed, mode="resume", progress=progress)
    return path


def training_config(config: QuickstartConfig) -> TrainConfig:
    """How LeWM is trained in this run."""
    from stable_worldmodel.train import TrainConfig

    return TrainConfig.preset(
        config.model,
        epochs=config.epochs,
        seed=config.seed,
        val_fraction=config.held_out,
        frameskip=config.plan.action_block,
        device="cpu" if config.device == "cpu" else "auto",
    )


def train_model(settings: TrainConfig, recording: Path, out: Path, progress: Progress) -> TrainResult:
    """Train on the recorded pixels and actions, or go on with a training that was interrupted."""
    from stable_worldmodel.data import load_dataset
    from stable_worldmodel.train import train
    from stable_worldmodel.train.run import StepProgress

    dataset = load_dataset(
        recording,
        num_steps=settings.num_steps,
        frameskip=settings.frameskip,
        keys_to_load=["pixels", "action"],
    )
    return train(settings, dataset, out, StepProgress(progress))


def make_world(config: QuickstartConfig, num_envs: int, max_episode_steps: int) -> World:
    shape = (config.image_size, config.image_size)
    return World(ENV, num_envs, shape, max_episode_steps=max_episode_steps, verbose=0)


def held_out_pairs(config: QuickstartConfig, lengths: np.ndarray, episodes: np.ndarray) -> tuple[list[int], list[int]]:
    """Start rows in held-out episodes: every episode once before any is used again, its start uniform.

    Returns episode numbers and start rows, `config.pairs` of each. ContractError if no held-out episode is long enough.
    """
    usable = np.asarray(episodes)[lengths[episodes] > config.goal_offset]
    if len(usable) == 0:
        raise ContractError(
            f"none of the {len(episodes)} held-out episodes is longer than goal_offset={config.goal_offset}; "
            "collect more episodes"
        )
    rng = np.random.default_rng([config.seed, 1])
    rounds = -(-config.pairs // len(usable))
    chosen = np.concatenate([rng.permutation(usable) for _ in range(rounds)])[: config.pairs]
    starts = rng.integers(0, lengths[chosen] - config.goal_offset)
    return chosen.tolist(), starts.tolist()


def planner(config: QuickstartConfig, checkpoint: Path) -> Any:
    """CEM in the latent space of the trained model, as a policy."""
    from stable_worldmodel.planning import GoalMSE, ShootingCostEvaluator
    from stable_worldmodel.policy import WorldModelPolicy
    from stable_worldmodel.solver import CEMSolver
    from stable_worldmodel.wm import load_checkpoint

    loaded = load_checkpoint(checkpoint)
    cost = ShootingCostEvaluator(loaded.model.to(config.device), GoalMSE())
    solver = CEMSolver(
        cost=cost,
        num_samples=config.samples,
        n_steps=config.iterations,
        topk=config.elites,
        device=config.device,
        seed=config.seed,
    )
    return WorldModelPolicy(solver, config.plan, process={"action": loaded.scalers["action"]})


def evaluate(
    config: QuickstartConfig,
    dataset: Any,
    policy: Any,
    pairs: tuple[list[int], list[int]],
    video: Path | None,
    progress: Progress,
) -> Results:
    """Success of one policy on held-out pairs, given as (episode numbers, start rows). `video`: folder for rollouts."""
    episodes_idx, start_steps = pairs
    # Twice the budget, so that the time limit never ends an episode before the budget does.
    with make_world(config, len(episodes_idx), 2 * config.eval_budget) as world:
        world.set_policy(policy)
        return world.evaluate(
            dataset=dataset,
            episodes_idx=episodes_idx,
            start_steps=start_steps,
            goal_offset=config.goal_offset,
            eval_budget=config.eval_budget,
            seed=config.seed,
            video=video,
            progress=progress,
        )


def write_outputs(
    config: QuickstartConfig, trained: TrainResult, results: dict[str, Results], timings: Timings
) -> QuickstartResult:
    """Write `results.json` and `report.html`."""
    from stable_worldmodel.report import Comparison, write_report
    from stable_worldmodel.utils.provenance import provenance

    comparisons = {
        name: Comparison.from_counts(
            label, int(results[name]["episode_successes"].sum()), results[name]["episode_count"]
        )
        for name, label in LABELS.items()
    }
    record = {
        **provenance(),
        "success": {name: dataclasses.asdict(comparison) for name, comparison in comparisons.items()},
        "evaluations": {name: result.to_json() for name, result in results.items()},
        "history": trained.history,
        "config": {**config.to_dict(), "training": dataclasses.asdict(training_config(config))},
        "timings": timings,
        "command": f"swm quickstart {shlex.join(command_arguments(config))}",
    }
    results_path = write_json(config.out / "results.json", record)
    report = build_report(config, results, list(comparisons.values()), record)
    report_path = write_report(report, config.out / "report.html")
    table = [
        {
            "policy": c.policy,
            "success %": round(c.rate, 1),
            "95 % interval": f"{c.low:.1f} to {c.high:.1f}",
            "episodes": f"{c.successes}/{c.total}",
        }
        for c in comparisons.values()
    ]
    return QuickstartResult(table, report_path, results_path, results)


def build_report(
    config: QuickstartConfig,
    results: dict[str, Results],
    comparisons: list[Any],
    record: dict[str, Any],
) -> Any:
    """The page that shows this run."""
    from stable_worldmodel.report import RunReport, contrasts_of, dataset_card, evaluation_of

    evaluations = [evaluation_of(LABELS[name], result) for name, result in results.items()]
    evaluations[0] = dataclasses.replace(evaluations[0], videos=pick_videos(config, results["planner"]))
    return RunReport(
        title="TwoRoom: planning with a world model learned from pixels",
        comparisons=comparisons,
        protocol=protocol_text(config, record["config"]["training"]["model"]["alignment_weight"]),
        contrasts=contrasts_of([(LABELS[name], result) for name, result in results.items()]),
        evaluations=evaluations,
        history=record["history"],
        dataset=dataset_card(config.out / "dataset.h5"),
        timings=record["timings"],
        command=record["command"],
        seeds={"run": config.seed, "first episode": config.seed},
        config=record["config"],
        versions=record["versions"],
        git_revision=record["git_revision"],
    )


def protocol_text(config: QuickstartConfig, alignment_weight: float) -> str:
    """What the numbers mean, in words."""
    return (
        f"{config.pairs} start and goal pairs from the {100 * config.held_out:g} % of the episodes the model was not "
        f"trained on. Each env starts at a recorded row; the goal is the frame {config.goal_offset} env steps later in "
        f"the recording, and the agent has {config.eval_budget} env steps to come within 16 of 224 pixels of the "
        "position it shows. Both policies get the same pairs. Intervals are Wilson's at 95 %. The world model is a "
        f"small LeWM; its loss has a temporal alignment term of weight {alignment_weight:g}, which the published loss "
        "lacks."
    )


def pick_videos(config: QuickstartConfig, planned: Results) -> list[Any]:
    """Planner rollouts for the report: the first ones, but half of them failures as far as there are any."""
    from stable_worldmodel.report import Video

    successes = planned["episode_successes"]
    failed = np.flatnonzero(~successes)[: config.videos // 2]
    chosen = [*np.flatnonzero(successes)[: config.videos - len(failed)], *failed]
    return [
        Video(
            path=config.out / "videos" / f"env_{item}.mp4",
            label=f"Pair {item}",
            success=bool(successes[item]),
            caption=f"{planned['episode_lengths'][item]} env steps",
        )
        for item in chosen
    ]


def command_arguments(config: QuickstartConfig) -> list[str]:
    """The command line of `swm quickstart` that runs this configuration."""
    preset = QuickstartConfig.preset(config.preset_name, out=config.out)
    arguments = ["--preset", config.preset_name, "--out", str(config.out), "--seed", str(config.seed)]
    for name in ("episodes", "epochs", "device"):
        if getattr(config, name) != getattr(preset, name):
            arguments += [f"--{name}", str(getattr(config, name))]
    return arguments
