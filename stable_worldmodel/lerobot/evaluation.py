"""Evaluate a policy on suites of tasks, one task at a time, with LeRobot's `eval_info.json` as the result."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from stable_worldmodel.errors import ContractError
from stable_worldmodel.lerobot.closing import close_envs, close_single_env
from stable_worldmodel.lerobot.factory import make_env
from stable_worldmodel.pool.process import cpu_count as available_cpus
from stable_worldmodel.protocols import Info
from stable_worldmodel.utils.files import write_json
from stable_worldmodel.utils.interrupts import InterruptGuard
from stable_worldmodel.utils.provenance import provenance
from stable_worldmodel.utils.statistics import wilson_interval
from stable_worldmodel.world import Rollout, World
from stable_worldmodel.world.episode import newest
from stable_worldmodel.world.evaluation import VIDEO_FPS, check_count, draw_views
from stable_worldmodel.world.identity import describe_policy
from stable_worldmodel.world.video import EpisodeVideos

logger = logging.getLogger(__name__)

SEED = 1000
MAX_VIDEOS = 10  # per task
MAX_BATCH = 64
INFO_FILE = "eval_info.json"


def auto_batch_size(n_episodes: int, cpu_count: int | None = None) -> int:
    """Sub-envs side by side: 7 of 10 CPU cores (default: those this process may use), at most `n_episodes`, 64."""
    cores = available_cpus() if cpu_count is None else cpu_count
    return min(max(1, 7 * cores // 10), n_episodes, MAX_BATCH)


@dataclass
class EvalConfig:
    """How much to evaluate, and how many envs run side by side. A batch larger than `n_episodes` is lowered to it."""

    n_episodes: int = 50  # per task
    batch_size: int = 0  # sub-envs; 0 chooses by `auto_batch_size`
    use_async_envs: bool = True  # worker processes, if there are several sub-envs

    def __post_init__(self) -> None:
        check_count("n_episodes", self.n_episodes)
        if isinstance(self.batch_size, bool) or not isinstance(self.batch_size, int) or self.batch_size < 0:
            raise ContractError(f"batch_size={self.batch_size!r}: expected an integer >= 0, 0 to choose automatically")
        self.batch_size = min(self.batch_size, self.n_episodes) or auto_batch_size(self.n_episodes)


@dataclass
class TaskResult:
    """What one task gave. Lists have one entry per episode, in episode order."""

    suite: str
    task: int
    sum_rewards: list[float] = field(default_factory=list)
    max_rewards: list[float] = field(default_factory=list)
    successes: list[bool] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    video_paths: list[str] = field(default_factory=list)
    error: str | None = None  # why it did not run

    def to_dict(self) -> dict[str, Any]:
        """An entry of `per_task`."""
        names = ("sum_rewards", "max_rewards", "successes", "video_paths", "lengths")
        metrics = {**{name: getattr(self, name) for name in names}, "predicted_video_paths": []}
        failure = {} if self.error is None else {"error": self.error}
        return {"task_group": self.suite, "task_id": self.task, "metrics": metrics, **failure}


@dataclass(frozen=True)
class _Plan:
    """What is done for every task."""

    n_episodes: int
    seed: int
    output_dir: Path | None
    max_videos: int
    world: Mapping[str, Any]  # arguments of World


def evaluate(
    env: Any,
    policy: Any,
    config: EvalConfig | None = None,
    *,
    trust_remote_code: bool = False,
    hub_cache_dir: str | Path | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Build the envs of a config or hub address and evaluate a policy on all their tasks.

    `options` are those of `eval_policy_all`.
    """
    config = config or EvalConfig()
    envs = make_env(env, config.batch_size, config.use_async_envs, hub_cache_dir, trust_remote_code)
    return eval_policy_all(envs, policy, config.n_episodes, **options)


def eval_policy_all(
    envs: Mapping[str, Mapping[int, Any]],
    policy: Any,
    n_episodes: int = 50,
    *,
    seed: int = SEED,
    output_dir: str | Path | None = None,
    max_videos: int = MAX_VIDEOS,
    image_shape: tuple[int, int] | None = None,
    workers: int | None = None,
    on_task: Callable[[TaskResult], None] | None = None,
) -> dict[str, Any]:
    """Evaluate `policy` on every task of `{suite: {task id: vector env}}` and return what `eval_info.json` holds.

    Tasks run one after the other. The env of each is closed when it is done, whatever happens; only then the worker
    processes of the next one, if it is lazy, start in the background. A task that fails is logged and reported with
    its error, and the rest run. Episode k of every task has seed `seed + k`.

    Args:
        policy: one for World (`get_action`), or one with LeRobot's interface (`select_action`).
        n_episodes: per task, >= 1.
        output_dir: gets `eval_info.json`, rewritten after every task, and `videos/<suite>_<task>/eval_episode_<i>.mp4`.
        max_videos: episodes filmed per task, where envs give frames.
        image_shape: (H, W) of frames of envs whose observations hold none; None does not render those.
        workers: processes per task; None takes one per CPU core.
        on_task: called with each TaskResult.

    Returns:
        `per_task`, a list; `per_group`, by suite; `overall`; `protocol`. Rates are percentages, with a Wilson interval
        at 95 % beside them.
    """
    tasks = [(suite, task, env) for suite, by_task in envs.items() for task, env in by_task.items()]
    if not tasks:
        raise ContractError("envs holds no task: expected {suite: {task id: vector env}}")
    check_count("n_episodes", n_episodes)
    options = {"image_shape": image_shape, "workers": workers}
    plan = _Plan(n_episodes, seed, None if output_dir is None else Path(output_dir), max_videos, options)
    acting = as_policy(policy)
    results: list[TaskResult] = []
    begin = time.perf_counter()
    info: dict[str, Any] = {}
    with contextlib.closing(_run_tasks(tasks, acting, plan)) as finished:
        for result in finished:
            results.append(result)
            info = summarize(results, time.perf_counter() - begin)
            info["protocol"] = {"n_episodes": n_episodes, "seed": seed, "policy": describe_policy(acting)}
            if plan.output_dir is not None:
                write_json(plan.output_dir / INFO_FILE, strict({**info, "provenance": provenance()}))
            if on_task is not None:
                on_task(result)
    return info


def as_policy(policy: Any) -> Any:
    """A policy for World out of one for World, or one with LeRobot's interface."""
    if callable(getattr(policy, "get_action", None)):
        return policy
    from stable_worldmodel.lerobot.policy import LeRobotPolicy

    return LeRobotPolicy(policy)


def _run_tasks(tasks: list[tuple[str, int, Any]], policy: Any, plan: _Plan) -> Generator[TaskResult, None, None]:
    """One result per task. Whatever is left open when the consumer stops is closed."""
    with contextlib.ExitStack() as stack:
        stack.callback(close_envs, [env for _, _, env in tasks])
        background = stack.enter_context(ThreadPoolExecutor(1))
        coming: Future[World] | None = None
        stack.callback(lambda: _discard(coming))
        for number, (suite, task, env) in enumerate(tasks):
            result = TaskResult(suite, task)
            world: World | None = None
            try:
                world = coming.result() if coming is not None else _open_world(env, plan)
                _run_task(world, policy, plan, result, env)
            except Exception as error:
                logger.exception("task %s %d failed", suite, task)
                result = TaskResult(suite, task, error=f"{type(error).__name__}: {error}")
            finally:
                coming = None
                close_envs([item for item in (world, env) if item is not None])
            following = tasks[number + 1][2] if number + 1 < len(tasks) else None
            if _starts_workers(following):
                coming = background.submit(_open_world, following, plan)
            yield result


def _discard(coming: Future[World] | None) -> None:
    """Close a world that was prefetched in vain."""
    if coming is not None:
        with contextlib.suppress(Exception):
            close_single_env(coming.result())


def _starts_workers(env: Any) -> bool:
    """Whether an env can be prepared by another thread: its envs, and their GL contexts, will be in other processes."""
    return getattr(env, "started", True) is False and getattr(env, "use_async", False) and env.num_envs > 1


def _open_world(env: Any, plan: _Plan) -> World:
    """A world over `env`, its workers started."""
    world = World(env, add_pixels=_draws(env, plan), goal_conditioned=False, verbose=0, **plan.world)
    try:
        world.single_action_space  # noqa: B018 - asks the workers for it
    except BaseException:
        world.close()
        raise
    return world


def _draws(env: Any, plan: _Plan) -> bool:
    """Whether there are frames to look at."""
    frames = "pixels" in (getattr(env.single_observation_space, "spaces", None) or {})
    return frames or plan.world["image_shape"] is not None


def _run_task(world: World, policy: Any, plan: _Plan, result: TaskResult, env: Any) -> None:
    world.set_policy(policy)
    best = np.full(plan.n_episodes, -np.inf)
    folder = None
    if plan.output_dir is not None and plan.max_videos > 0 and _draws(env, plan):
        folder = plan.output_dir / "videos" / f"{result.suite}_{result.task}".replace("/", "_")
    fps = int((env.metadata or {}).get("render_fps") or VIDEO_FPS)
    videos = EpisodeVideos(folder, "eval_episode", draw_views, fps)
    rollout: Rollout

    def observe(infos: Info, mask: np.ndarray) -> None:
        guard.check()
        filmed = np.zeros_like(mask)
        for i, episode in rollout.running.items():
            filmed[i] = mask[i] and episode < plan.max_videos
            if mask[i] and newest(infos["step_idx"], i) > 0:
                best[episode] = max(best[episode], float(world.rewards[i]))
        videos.write(rollout, infos, filmed)

    mode = getattr(policy, "reset_mode", "auto")
    with InterruptGuard() as guard, videos:
        rollout = Rollout(world.stepper, range(plan.n_episodes), seed=plan.seed, mode=mode, observers=[observe])
        for episode in rollout:
            videos.settle()
            result.sum_rewards.append(episode.total_reward)
            result.max_rewards.append(float(best[episode.index]))
            result.successes.append(bool(episode.success))
            result.lengths.append(episode.length)
    if folder is not None:
        filmed = range(min(plan.max_videos, plan.n_episodes))
        result.video_paths = [str(folder / f"eval_episode_{episode}.mp4") for episode in filmed]


def summarize(results: Iterable[TaskResult], seconds: float) -> dict[str, Any]:
    """`per_task`, `per_group` and `overall` of finished tasks."""
    done = list(results)
    groups: dict[str, list[TaskResult]] = {}
    for result in done:
        groups.setdefault(result.suite, []).append(result)
    overall = _aggregate(done)
    overall["eval_s"] = seconds
    overall["eval_ep_s"] = seconds / overall["n_episodes"] if overall["n_episodes"] else math.nan
    return {
        "per_task": [result.to_dict() for result in done],
        "per_group": {suite: _aggregate(members) for suite, members in groups.items()},
        "overall": overall,
    }


def _aggregate(results: list[TaskResult]) -> dict[str, Any]:
    """Means over all episodes of some tasks; NaN without any."""
    joined = {
        name: [value for result in results for value in getattr(result, name)]
        for name in ("sum_rewards", "max_rewards", "successes", "video_paths")
    }
    successes = joined["successes"]
    low, high = wilson_interval(sum(successes), len(successes)) if successes else (math.nan, math.nan)
    return {
        "avg_sum_reward": _mean(joined["sum_rewards"]),
        "avg_max_reward": _mean(joined["max_rewards"]),
        "pc_success": 100 * _mean(successes),
        "pc_success_interval": [100 * low, 100 * high],
        "n_episodes": len(successes),
        "n_failed_tasks": sum(result.error is not None for result in results),
        "video_paths": joined["video_paths"],
        "predicted_video_paths": [],
    }


def _mean(values: list[Any]) -> float:
    return float(np.mean(values)) if values else math.nan


def strict(value: Any) -> Any:
    """`value` with numbers that JSON does not have as None."""
    if isinstance(value, Mapping):
        return {str(key): strict(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [strict(item) for item in value]
    if isinstance(value, np.generic):
        return strict(value.item())
    return None if isinstance(value, float) and not math.isfinite(value) else value
