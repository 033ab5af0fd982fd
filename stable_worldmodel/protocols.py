"""The structural types at which the layers meet. No layer imports another one's classes to check these.

Shapes use the field's letters: N envs in the pool, n envs in one solve, S candidates, H macro steps of `action_block`
env steps each, A the flattened size of one macro action, T the time axis of an info value, D the latent width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

Info = dict[str, Any]


@runtime_checkable
class Policy(Protocol):
    """Maps the stacked infos of a pool to one action per env.

    Optional hooks that World calls when present: `set_env(pool)` once; `set_seed(seed)` when `policy.seed` is set;
    `reset(env_indices, episode_seeds)` for envs that start an episode, before their first `get_action`
    (`episode_seeds` is None when the rollout is unseeded). An attribute `reset_mode` says how rollouts should start
    episodes: 'auto' as soon as an env is free (the default), 'batches' when all envs have ended, for policies with one
    state for all of them, 'wait' one episode per env.
    """

    def get_action(self, info: Info, /) -> np.ndarray:
        """Return actions of shape (N, *action_shape); rows of envs that do not act are ignored."""
        ...


@runtime_checkable
class Transformable(Protocol):
    """An invertible map of arrays, e.g. a scaler. Array in, array out."""

    def transform(self, x: Any) -> Any: ...

    def inverse_transform(self, x: Any) -> Any: ...


@runtime_checkable
class Costable(Protocol):
    """Anything a solver can minimise."""

    def get_cost(self, info: Info, candidates: Any) -> Any:
        """Cost (n, S) of action candidates (n, S, H, A); lower is better."""
        ...


@runtime_checkable
class Preparable(Protocol):
    """A cost that does once per solve what does not depend on the candidates, such as encoding images.

    Solvers call `prepare` once per solve and `cost` in every iteration; `get_cost(info, candidates)` of the same object
    is `cost(prepare(info), candidates)`.
    """

    def prepare(self, info: Info) -> Any:
        """The context of a solve; nothing of it has a candidate axis. `info` is not modified."""
        ...

    def cost(self, context: Any, candidates: Any) -> Any:
        """Cost (n, S) of action candidates (n, S, H, A); `context` is not modified."""
        ...


@runtime_checkable
class Constrainable(Protocol):
    """A cost with inequality constraints."""

    def get_constraints(self, info: Info, candidates: Any) -> Any:
        """Constraint values (n, S, C), satisfied where <= 0."""
        ...


@runtime_checkable
class Actionable(Protocol):
    """A model that proposes actions, used to fill the unplanned tail of a warm start."""

    def get_action(self, info: Info, horizon: int = 1, prefix_actions: Any = None) -> Any: ...


@runtime_checkable
class Dynamics(Protocol):
    """A world model that can encode observations and roll actions forward in its latent space.

    Two optional extras are found by their presence: a keyword `last_only` of `rollout`, with which only the last
    prediction is returned, (n, S, 1, D); and `decode(emb)`, which turns latents (..., D) into images (..., 3, h, w).
    """

    def encode(self, info: Info) -> Info:
        """Return info with `emb` (n, T, D) added, and `act_emb` when `action` is present."""
        ...

    def rollout(self, info: Info, candidates: Any) -> Info:
        """Return info with `predicted_emb` (n, S, L + H, D); the first L entries are the encoded context."""
        ...


@runtime_checkable
class Objective(Protocol):
    """Scores a rolled-out info; does not roll out itself."""

    def __call__(self, info: Info) -> Any:
        """Cost (n, S)."""
        ...


@runtime_checkable
class Solver(Protocol):
    """Finds action sequences of low cost."""

    def configure(self, *, action_space: Any, n_envs: int, config: Any) -> None: ...

    def solve(self, info: Info, init_action: Any = None) -> dict[str, Any]:
        """Return a dict with `actions` (n, H, A) on the CPU."""
        ...

    @property
    def n_envs(self) -> int | None: ...

    @property
    def action_dim(self) -> int: ...

    @property
    def horizon(self) -> int: ...


@runtime_checkable
class Writer(Protocol):
    """A sink of complete episodes, used as a context manager.

    An episode is a mapping column -> array (rows, ...) or list of per-row values, all of one length.
    """

    def write_episode(self, episode: Mapping[str, Sequence[Any] | np.ndarray]) -> None: ...

    def write_episodes(self, episodes: Iterable[Mapping[str, Any]]) -> None: ...


@runtime_checkable
class EpisodeReader(Protocol):
    """Random access to stored episodes, as dataset-driven evaluation needs it."""

    @property
    def lengths(self) -> np.ndarray:
        """Rows per episode, (E,)."""
        ...

    @property
    def column_names(self) -> list[str]: ...

    def read_rows(
        self, episode: int, start: int, stop: int, columns: Sequence[str] | None = None
    ) -> dict[str, np.ndarray]:
        """Rows [start, stop) of one episode at stride 1: images (rows, H, W, C), numbers as stored."""
        ...


@runtime_checkable
class Executor(Protocol):
    """Where jobs run: in this process, in others, on a Ray cluster, through SLURM."""

    def __call__(
        self, function: Callable[[Any], Any], jobs: Sequence[Any], tick: Callable[[], None] | None = None
    ) -> Iterator[Any]:
        """Yield `function(job)` of every job as they finish, in any order, anywhere.

        `function` is a module's own function that may run twice for one job (after the loss of a worker) and gives the
        same result then. `tick` is called about once a second while waiting. An error of a job is raised here, once the
        others that run have ended; jobs that did not start are given up.
        """
        ...
