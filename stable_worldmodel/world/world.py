"""World: one object to reset, step, collect and evaluate many copies of an env."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from stable_worldmodel.errors import ContractError, PolicyNotSetError, require
from stable_worldmodel.pool import TIMEOUT
from stable_worldmodel.pool.arguments import check_seed, options_per_env, seeds_per_env
from stable_worldmodel.protocols import Executor, Policy, Writer
from stable_worldmodel.utils.progress import Progress
from stable_worldmodel.world import collect as _collect
from stable_worldmodel.world import evaluation, from_dataset, recording
from stable_worldmodel.world.construction import DEFAULT_LIMIT, EnvRecipe
from stable_worldmodel.world.identity import describe_policy, policy_content
from stable_worldmodel.world.partial import check_dump_every
from stable_worldmodel.world.results import Results
from stable_worldmodel.world.stepper import Stepper

logger = logging.getLogger(__name__)

DEFAULT_SEED = 2349867


class World:
    """`num_envs` copies of a Gymnasium env, their infos stacked, driven by one policy.

    Args:
        env_name: Gymnasium id; a bare id that is not registered is tried with the `swm/` prefix. Or a Gymnasium vector
            env, which this world closes, or `hub:<owner>/<repo>[@<revision>][:<path>][#<task>]`, code on the Hugging
            Face hub that builds one; see `docs/lerobot.md`.
        num_envs: size of the pool, >= 1. A vector env has its own; the hub builds 1 unless told otherwise.
        image_shape: (H, W) or (H, W, C) of `pixels` and `goal`; required unless `add_pixels=False`, or envs that are
            built already have frames in their observations, whose size is the default then.
        max_episode_steps: time limit (truncation); None keeps the registered one. Envs that are built already and have
            a limit keep it, unless a value other than the default is given.
        goal_conditioned: warn once if the env gives no `goal`.
        pre_wrappers, extra_wrappers: callables env -> env, applied inside and outside of MegaWrapper.
        image_transform, goal_transform: applied to the PIL images.
        goal_shape: (H, W) of `goal` where it differs from `image_shape`.
        image_resample: filter for frames of another size: nearest, bilinear (default), bicubic, lanczos, box, hamming.
        add_pixels: render; with False nothing is drawn.
        seed: used only when the first step comes before any reset.
        history_size, frame_skip: length of the time axis T of the infos, and the env steps between its entries.
        backend: 'sync' steps the envs in this process, 'process' in worker processes, 'auto' in whichever is faster
            (see `pool.make_pool`). Results do not depend on it.
        workers, timeout: number of worker processes, and seconds after which a silent one is replaced (ProcessPool).
        trust_remote_code: run the code of a `hub:` address, which is refused otherwise, before anything is fetched.
        verbose: 0 silent, 1 log the spaces, 2 log every episode end.
        **kwargs: passed to the env's constructor.

    Raises:
        ContractError: an argument is out of range, or the envs disagree on their spaces.
        gymnasium.error.Error: the id is unknown; the message lists close ones.
        RuntimeError: a `hub:` address without `trust_remote_code=True`.
    """

    def __init__(
        self,
        env_name: Any,
        num_envs: int | None = None,
        image_shape: Sequence[int] | None = None,
        *,
        max_episode_steps: int | None = DEFAULT_LIMIT,
        goal_conditioned: bool = True,
        pre_wrappers: Sequence[Callable] | None = None,
        extra_wrappers: Sequence[Callable] | None = None,
        image_transform: Callable | None = None,
        goal_transform: Callable | None = None,
        goal_shape: Sequence[int] | None = None,
        image_resample: str | int | None = None,
        add_pixels: bool = True,
        seed: int = DEFAULT_SEED,
        history_size: int = 1,
        frame_skip: int = 1,
        backend: str = "auto",
        workers: int | None = None,
        timeout: float | None = TIMEOUT,
        verbose: int = 1,
        trust_remote_code: bool = False,
        **kwargs: Any,
    ):
        standard = {
            "pixels_transform": image_transform,
            "goal_transform": goal_transform,
            "separate_goal": goal_conditioned,
            "goal_shape": goal_shape,
            "image_resample": image_resample,
            "add_pixels": add_pixels,
            "history_size": history_size,
            "frame_skip": frame_skip,
        }
        around = list(pre_wrappers or ()), list(extra_wrappers or ())
        self._recipe = EnvRecipe(env_name, num_envs, image_shape, max_episode_steps, kwargs, *around, standard)
        self.pool_options = {"backend": backend, "workers": workers, "timeout": timeout}
        self.seed = check_seed(seed)
        self._goal_conditioned = goal_conditioned
        self._verbose = verbose
        self.envs, self.env_name, self._env_origin = self._recipe.open(backend, workers, timeout, trust_remote_code)
        self._stepper = Stepper(self.envs, verbose >= 2, self._look_at_first_reset)
        self._closed = False

    # ------------------------------------------------------------------ state
    recipe = property(lambda self: self._recipe, doc="What the envs are made of.")
    policy = property(lambda self: self._stepper.policy, doc="The policy set by `set_policy`, or None.")
    stepper = property(lambda self: self._stepper, doc="Pool and policy, for a `Rollout` of one's own.")
    infos = property(lambda self: self._stepper.infos, doc="Stacked infos (N, T, ...), a live view.")
    states = property(lambda self: self._stepper.states, doc="Batched observations (N, ...), or None before a reset.")
    rewards = property(lambda self: self._stepper.rewards, doc="Last rewards, float64 (N,).")
    terminateds = property(lambda self: self._stepper.terminateds, doc="Last terminated flags, bool (N,).")
    truncateds = property(lambda self: self._stepper.truncateds, doc="Last truncated flags, bool (N,).")

    num_envs = property(lambda self: self.envs.num_envs, doc="Size of the pool.")
    observation_space = property(lambda self: self.envs.observation_space, doc="Batched observation space.")
    action_space = property(lambda self: self.envs.action_space, doc="Batched action space.")
    variation_space = property(lambda self: self.envs.variation_space, doc="Batched factors of variation, or None.")
    single_observation_space = property(lambda self: self.envs.single_observation_space, doc="Of one env.")
    single_action_space = property(lambda self: self.envs.single_action_space, doc="Of one env.")
    single_variation_space = property(lambda self: self.envs.single_variation_space, doc="Of env 0, or None.")

    # ------------------------------------------------------------------ life
    def set_policy(self, policy: Policy) -> None:
        """Attach a policy: anything with a callable `get_action` (else TypeError)."""
        if not callable(getattr(policy, "get_action", None)):
            raise TypeError(f"{type(policy).__name__} is not a policy: it has no callable get_action")
        self._stepper.policy = policy
        if callable(getattr(policy, "set_env", None)):
            policy.set_env(self.envs)  # type: ignore[attr-defined]
        seed = getattr(policy, "seed", None)
        set_seed = getattr(policy, "set_seed", None) or getattr(policy, "_set_seed", None)
        if seed is not None and callable(set_seed):
            set_seed(seed)

    def reset(self, seed: Any = None, options: Any = None) -> None:
        """Reset every env. `seed`: integer s (env i gets s + i), one entry per env, or None; `options` likewise."""
        self._stepper.reset(seeds_per_env(seed, self.num_envs), options_per_env(options, self.num_envs))

    def step(self) -> None:
        """Ask the policy for actions and step the envs that are alive. Ended envs stay frozen until a reset.

        Raises PolicyNotSetError without a policy, ContractError for actions of the wrong shape or NaN for live envs.
        """
        if self.policy is None:
            raise PolicyNotSetError("no policy is set; call world.set_policy(policy) first")
        if not self._stepper.was_reset:
            self.reset(seed=self.seed)
        self._stepper.step()

    def close(self, **kwargs: Any) -> None:
        """Close every env; a second call does nothing."""
        if not self._closed:
            self._closed = True
            self.envs.close(**kwargs)

    def __enter__(self) -> World:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _look_at_first_reset(self) -> None:
        """Log what the envs are and whether they give what was asked for, once they have started."""
        if self._verbose >= 1:
            spaces = self.single_observation_space, self.single_action_space, self.single_variation_space
            logger.info("%s: observations %s, actions %s, variations %s", self.env_name, *spaces)
        if self._goal_conditioned and "goal" not in self.infos:
            logger.warning("%s gives no 'goal' in info; pass goal_conditioned=False if it has none", self.env_name)

    # ------------------------------------------------------------------ collect
    def collect(
        self,
        path: str | Path | None = None,
        episodes: int = 10,
        seed: int | None = None,
        *,
        options: Any = None,
        format: str | None = None,
        writer: Writer | None = None,
        progress: bool | Progress = True,
        mode: str = "append",
        cluster: str | Executor | None = None,
        shards: int | None = None,
        shard: int | None = None,
        cluster_options: Mapping[str, Any] | None = None,
        **writer_options: Any,
    ) -> None:
        """Record complete episodes, in episode order; the content does not depend on `num_envs`.

        Episode k of the dataset has seed `seed + k`. An interruption loses at most the episodes in progress.
        With `cluster`, many Worlds like this one record it in shards, which then become one dataset, equal to the one
        that this World alone would record; see `docs/scaling.md`.

        Args:
            path, writer: exactly one: a file or directory, or any object with `write_episode`.
            episodes: how many, >= 1.
            format: data format; None decides by the suffix (.h5 when there is none).
            mode: 'append' adds `episodes` more after those stored, 'resume' records those missing up to `episodes`,
                'overwrite' replaces, 'error' refuses an existing target.
            progress: True shows a bar on a terminal; or an object to report to.
            cluster: where shards are recorded: 'local' (processes), 'ray', 'slurm', or an Executor. Needs a seed.
            shards: how many; 64, or one per episode if there are fewer.
            shard: record only this one, 1 … shards, with this World; `merge_shards` joins them when all are done.
            cluster_options: of the executor, such as `workers`; see `cluster.open_executor`.
            writer_options: for the writer of the format, such as `unique_columns` of hdf5 or `quality` of folder.

        Raises:
            ContractError: arguments out of range, or the stored dataset has another schema or origin.
            PolicyNotSetError: no policy is set.
        """
        if (path is None) == (writer is None):
            raise ValueError("collect needs exactly one of path and writer")
        evaluation.check_count("episodes", episodes)
        seed = None if seed is None else check_seed(seed)
        self._require_policy()
        if any(value is not None for value in (cluster, shards, shard, cluster_options)):
            if path is None:
                raise ContractError("shards are datasets beside a path; give path= instead of writer=")
            from stable_worldmodel.cluster.collect import Request, collect

            request = Request(path, episodes, seed, options, format, mode, shards, writer_options)
            collect(self, request, shard, cluster, cluster_options, progress)
            return
        if writer is not None:
            if writer_options:
                raise TypeError(f"options {sorted(writer_options)} belong to a path; this writer is open already")
            _collect.record(self._stepper, writer, range(episodes), seed, options, progress)
            return
        metadata = _collect.run_metadata(self._stepper, self.spec(), seed, options)
        with _collect.open_target(path, format, mode, metadata, writer_options) as target:  # type: ignore[arg-type]
            indices = _collect.first_episode(target.num_episodes, episodes, mode)
            _collect.record(self._stepper, target, indices, seed, options, progress)

    def record_dataset(
        self,
        dataset_name: str | Path,
        episodes: int = 10,
        seed: int | None = None,
        cache_dir: str | Path | None = None,
        options: Any = None,
    ) -> None:
        """Record into `<root>/<dataset_name>.h5` until it holds `episodes` episodes; those it has already count.

        The root is `cache_dir`, else the cache root. Episode k has seed `seed + k`. Otherwise like
        `collect(mode='resume')`, which refuses to continue what another env, policy, seed or options recorded.
        """
        path = recording.dataset_file(dataset_name, cache_dir)
        self.collect(path, episodes, seed, options=options, mode="resume", progress=self._verbose >= 1)

    # ------------------------------------------------------------------ videos
    def record_video(
        self,
        video_path: str | Path,
        max_steps: int = 500,
        fps: int = 30,
        viewname: str | Sequence[str] = "pixels",
        seed: Any = None,
        options: Any = None,
        *,
        extension: str = "mp4",
    ) -> None:
        """Film every env from a full reset until `max_steps` or the first end: `<video_path>/env_<i>.<extension>`.

        A frame shows the views one below the other, as RGB, and below them `goal` if it is an image.

        Args:
            viewname: one info key or several. A name that is no key stands for its views: `pixels` for `pixels.top`.
            seed, options: as in `reset`.
            extension: mp4 or gif.

        Raises:
            ContractError: arguments out of range.
            MissingKeyError: a view is not there, or no image; before the first step.
        """
        self._require_policy()
        recording.record_video(
            self._stepper, video_path, max_steps, fps, viewname, seed=seed, options=options, extension=extension
        )

    def record_video_from_dataset(
        self,
        video_path: str | Path,
        dataset_name: Any,
        episode_idx: int | Sequence[int],
        max_steps: int = 500,
        fps: int = 30,
        num_proc: int = 4,
        viewname: str | Sequence[str] = "pixels",
        cache_dir: str | Path | None = None,
    ) -> None:
        """Write recorded episodes as `<video_path>/episode_<i>.mp4`; see `utils.record_video_from_dataset`."""
        recording.record_video_from_dataset(
            video_path, dataset_name, episode_idx, max_steps, fps, viewname, num_proc=num_proc, cache_dir=cache_dir
        )

    # ------------------------------------------------------------------ evaluate
    def evaluate(
        self,
        episodes: int = 10,
        *,
        eval_keys: Iterable[str] | None = None,
        seed: int | None = None,
        options: Any = None,
        dump_every: int = -1,
        video: str | Path | None = None,
        reset_mode: str | None = None,
        dataset: Any = None,
        episodes_idx: Sequence[int] | None = None,
        start_steps: Sequence[int] | None = None,
        goal_offset: int | None = None,
        eval_budget: int | None = None,
        callables: Iterable[dict] | None = None,
        progress: bool | Progress = False,
        cluster: str | Executor | None = None,
        shards: int | None = None,
        cluster_options: Mapping[str, Any] | None = None,
    ) -> Results:
        """Score the policy: on episodes 0 … episodes - 1, or, given `dataset`, on recorded starts and goals.

        An episode succeeds if at its last row `is_success`, else `success` of its info is true; envs that give neither
        succeed by terminating. Truncation alone is failure. With a dataset, item i starts env i at row
        `start_steps[i]` of episode `episodes_idx[i]`, the goal is `goal_offset` rows later, and success at any of the
        `eval_budget` steps counts. `protocol["success"]` of the results says which of them was read.

        Args:
            eval_keys: info keys whose last value is returned per episode.
            seed: episode k gets `seed + k`; with a dataset, used only where it has no seed column.
            dump_every: k > 0 keeps the finished episodes on disk after every k of them; the same call, whatever
                its `num_envs`, then goes on after an interruption. Needs a seed.
            video: directory; one MP4 per episode (with a dataset: rollout, recording and goal side by side).
            reset_mode: 'auto', 'wait' or 'batches'; see Rollout. Default: what the policy has as `reset_mode`, else
                'auto'; with a dataset 'wait'.
            callables: with a dataset, methods to call on envs that have no `reset_options_from_dataset`.
            cluster: where episodes are played: 'local' (processes), 'ray', 'slurm', or an Executor; the results are the
                same. Needs a seed; not with `dataset`, `dump_every` or `video`, for which there is `Evaluation`.
            shards: contiguous ranges of episodes, each a job; default: one per worker.
            cluster_options: of the executor, such as `workers`; see `cluster.open_executor`.

        Raises:
            ContractError, MissingKeyError: before the first step, naming what is wrong.
        """
        self._require_policy()
        seed = None if seed is None else check_seed(seed)
        every = check_dump_every(dump_every)
        required: dict[str, Any] = {
            "episodes_idx": episodes_idx,
            "start_steps": start_steps,
            "goal_offset": goal_offset,
            "eval_budget": eval_budget,
        }
        spread: dict[str, Any] = {"cluster": cluster, "shards": shards, "cluster_options": cluster_options}
        if dataset is None:
            extra = [name for name, value in {**required, "callables": callables}.items() if value is not None]
            if extra:
                raise ContractError(f"{extra} need a dataset; pass dataset=... or leave them out")
            episodic = evaluation.EpisodicProtocol(episodes, evaluation.key_list(eval_keys), seed, options)
            if any(value is not None for value in spread.values()):
                if every or video is not None:
                    raise ContractError("dump_every and video cannot be given with a cluster; see Evaluation")
                return self._evaluate_in_parts(episodic, reset_mode or self._mode, progress, **spread)
            output = self._output(progress, video, "episode")
            return self._evaluate_episodes(episodic, every, output, reset_mode or self._mode)
        given = {"options": options, "eval_keys": eval_keys, "dump_every": every or None, **spread}
        missing = [name for name, value in required.items() if value is None]
        refused = [name for name, value in given.items() if value is not None]
        if missing or refused:
            raise ContractError(f"with a dataset, {missing} are required and {refused} cannot be given")
        items = from_dataset.DatasetProtocol.of(dataset, **required, seed=seed, callables=callables)
        return self._evaluate_items(items, self._output(progress, video, "env"), reset_mode)

    def evaluate_from_dataset(
        self,
        dataset: Any,
        episodes_idx: Sequence[int],
        start_steps: Sequence[int],
        goal_offset_steps: int,
        eval_budget: int,
        callables: Iterable[dict] | None = None,
        save_video: bool = True,
        video_path: str | Path = "./",
    ) -> Results:
        """`evaluate` with a dataset; the videos are `<video_path>/rollout_<i>.mp4`."""
        self._require_policy()
        output = self._output(False, video_path if save_video else None, "rollout")
        protocol = from_dataset.DatasetProtocol.of(
            dataset, episodes_idx, start_steps, goal_offset_steps, eval_budget, seed=None, callables=callables
        )
        return self._evaluate_items(protocol, output)

    def _evaluate_episodes(
        self, protocol: evaluation.EpisodicProtocol, dump_every: int, output: evaluation.Output, mode: str
    ) -> Results:
        spaces = [repr(self.single_observation_space), repr(self.single_action_space)]
        video = output.video and output.video.resolve()
        partial = evaluation.open_partial(
            protocol, dump_every, [self.spec(), self._recipe.arguments, spaces], policy_content(self.policy), video
        )
        finished = evaluation.evaluate_episodes(self._stepper, protocol, partial, output, mode)
        return evaluation.summarise(finished, protocol.eval_keys, {**self._origin(), **protocol.describe()})

    def _evaluate_in_parts(
        self, protocol: evaluation.EpisodicProtocol, reset_mode: str, progress: bool | Progress, **spread: Any
    ) -> Results:
        from stable_worldmodel.cluster.evaluate import evaluate

        finished = evaluate(self, protocol, reset_mode, progress=progress, **spread)
        return evaluation.summarise(finished, protocol.eval_keys, {**self._origin(), **protocol.describe()})

    def _evaluate_items(
        self, protocol: from_dataset.DatasetProtocol, output: evaluation.Output, reset_mode: str | None = None
    ) -> Results:
        limit = self._recipe.limit
        if limit is not None and limit < protocol.eval_budget:
            logger.warning("max_episode_steps=%d ends episodes before eval_budget=%d", limit, protocol.eval_budget)
        finished = from_dataset.evaluate_items(self._stepper, protocol, output, reset_mode or "wait")
        return evaluation.summarise(finished, (), {**self._origin(), **protocol.describe()})

    def _output(self, progress: bool | Progress, video: str | Path | None, stem: str) -> evaluation.Output:
        if video is not None:
            require("av")
            if not self._recipe.draws:
                raise ContractError("video needs frames, but this World was built with add_pixels=False")
        return evaluation.Output(progress, None if video is None else Path(video), stem)

    @property
    def _mode(self) -> str:
        """How the policy wants episodes to start; see Rollout."""
        return getattr(self.policy, "reset_mode", "auto")

    def _require_policy(self) -> None:
        if self.policy is None:
            raise PolicyNotSetError("no policy is set; call world.set_policy(policy) first")

    def _origin(self) -> dict[str, Any]:
        return {"env": self.spec(), "policy": describe_policy(self.policy)}

    def spec(self) -> dict[str, Any]:
        """Id, constructor arguments, image shape and wrappers, JSON-able: what it takes to build these envs again.

        Of envs from the hub also `hub`: repository, file, revision, the commit it resolved to, and the file's hash.
        """
        return {"id": self.env_name, **self._recipe.describe(), **self._env_origin}
