"""One evaluation as a value: who acts, in which env, from where, and what it takes to repeat it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from stable_worldmodel.errors import ContractError
from stable_worldmodel.evaluation import subjects
from stable_worldmodel.evaluation.pairs import Pairs, sample_pairs
from stable_worldmodel.evaluation.parts import run_in_parts
from stable_worldmodel.evaluation.run import run_episodes, run_pairs
from stable_worldmodel.policy.named import make_policy
from stable_worldmodel.protocols import Executor
from stable_worldmodel.train.protocol import EvalProtocol, recorded_protocol
from stable_worldmodel.utils.progress import Progress
from stable_worldmodel.world import Results, World

DEFAULT_LIMIT = 100  # env steps per episode where neither protocol nor command says more
RECORDINGS = "recordings"  # folder, below that of an evaluation's output


@dataclass(frozen=True)
class Evaluation:
    """Who acts, and how that is scored.

    With a `protocol.dataset`, or a `recorder`, each item starts at a recorded row and must reach the state that the
    recording shows `goal_offset` rows later, within `eval_budget` env steps. Else the env chooses start and goal, and
    an episode lasts until it ends by itself.

    Raises ContractError for values that cannot be evaluated.
    """

    subject: str  # a checkpoint, or a policy: random, noop, replay, expert, oracle ...
    protocol: EvalProtocol = field(default_factory=EvalProtocol)
    recorder: str | None = None  # record the episodes to start from anew, with this policy
    split_of: str | None = None  # the checkpoint whose held-out episodes give the pairs; None: the subject's own
    variation: tuple[str, ...] = ()  # factors drawn anew in every episode
    num_envs: int = 50  # played side by side; decides nothing but speed and memory
    device: str = "cpu"

    def __post_init__(self) -> None:
        for name in ("episodes", "goal_offset", "eval_budget"):
            if getattr(self.protocol, name) < 1:
                raise ContractError(f"{name}={getattr(self.protocol, name)}: expected an integer >= 1")
        if self.num_envs < 1:
            raise ContractError(f"num_envs={self.num_envs}: expected an integer >= 1")
        if "id" not in self.protocol.env:
            raise ContractError(f"{self.subject!r} does not say which environment it is for; name one")
        if self.variation and self.protocol.dataset is not None and self.recorder is None:
            raise ContractError(
                f"recorded starts have the factors they were recorded with; to vary {', '.join(self.variation)}, "
                "name a policy that records new ones (recorder='expert'), or use no dataset"
            )
        if self.subject == "replay" and not self.from_recording:
            raise ContractError("'replay' repeats recorded actions: expected a dataset, or a policy that records one")

    @classmethod
    def of(cls, subject: str | Path, **changes: Any) -> Evaluation:
        """The evaluation that a checkpoint was saved with, or the published protocol for a policy.

        Args:
            changes: values of Evaluation or of EvalProtocol to replace. `env` may be an id; a `dataset` also says what
                env it was recorded in, and at what size; of `plan` and `solver` the values named are replaced.
        """
        from stable_worldmodel.data import load_dataset
        from stable_worldmodel.envs import resolve_id

        own = {name: changes.pop(name) for name in _OWN & changes.keys()}
        unknown = sorted(changes.keys() - _PROTOCOL)
        if unknown:
            raise ContractError(f"no {', '.join(unknown)} in an evaluation: expected {sorted(_OWN | _PROTOCOL)}")
        protocol = subjects.protocol_of(str(subject))
        if own.get("recorder") is not None:
            changes["dataset"] = None
        if changes.get("dataset") is not None:
            recorded = recorded_protocol(load_dataset(changes["dataset"]))
            protocol = replace(protocol, env=recorded.env or protocol.env, image_shape=recorded.image_shape)
            changes["dataset"] = recorded.dataset or str(changes["dataset"])
        if isinstance(changes.get("env"), str):
            env = resolve_id(changes["env"])
            same = protocol.env.get("id") == env
            changes["env"] = {**protocol.env, "id": env} if same else {"id": env, "arguments": {}}
        if changes.get("plan") is not None:
            changes["plan"] = {**(protocol.plan or {}), **changes["plan"]}
        if changes.get("solver") is not None:
            changes["solver"] = subjects.changed_solver(protocol.solver, changes["solver"])
        return cls(str(subject), replace(protocol, **changes), **own)

    @property
    def from_recording(self) -> bool:
        """Whether items start at recorded rows."""
        return self.protocol.dataset is not None or self.recorder is not None

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {**asdict(self), "protocol": self.protocol.to_dict(), "variation": list(self.variation)}

    @property
    def digest(self) -> str:
        """Eight hexadecimal digits that tell evaluations apart, whatever only decides about speed."""
        values = self.to_dict()
        del values["num_envs"], values["device"]
        return hashlib.blake2b(json.dumps(values, sort_keys=True).encode(), digest_size=4).hexdigest()

    # ------------------------------------------------------------------ running
    def run(
        self,
        folder: str | Path | None = None,
        *,
        video: str | Path | None = None,
        progress: bool | Progress = False,
        cluster: str | Executor | None = None,
        shards: int | None = None,
        cluster_options: Mapping[str, Any] | None = None,
    ) -> Results:
        """Score the subject.

        Args:
            folder: where a recorder's episodes are kept; None: below the data root.
            video: folder for an MP4 per item.
            cluster: where: `local` (worker processes), `ray`, `slurm`, or an executor; None: in this process. The
                results are the same. Paths must mean the same for all workers.
            shards: contiguous parts of the items, each a job; default: one per worker.
            cluster_options: of the executor; see `cluster.open_executor`.

        Raises:
            NotFoundError, ContractError, MissingKeyError: before the first step, naming what is wrong.
        """
        if cluster is not None:
            results = run_in_parts(self, cluster, shards, cluster_options, folder, video, progress)
        elif shards is not None or cluster_options:
            raise ContractError("shards and cluster_options say how a cluster is used: name one with cluster=...")
        else:
            results = self.run_part(range(self.protocol.episodes), folder, video, progress)
        results.protocol["evaluation"] = self.to_dict()
        return results

    def run_part(
        self,
        items: range,
        folder: str | Path | None = None,
        video: str | Path | None = None,
        progress: bool | Progress = False,
    ) -> Results:
        """Score consecutive items of this evaluation, which are what they are in the whole of it."""
        acting = subjects.load(self.subject, self.protocol, self.device)
        try:
            if not self.from_recording:
                options = {"variation": list(self.variation)} if self.variation else None
                return run_episodes(self, acting, items, options, video, progress)
            dataset = self.open_dataset(folder, progress)
            pairs = self._pairs(dataset, acting)[items.start : items.stop]
            return run_pairs(self, acting, dataset, pairs, items.start, video, progress)
        finally:
            acting.close()

    def world(self, num_envs: int, limit: int | None = None) -> World:
        """The envs of this evaluation, with `limit` env steps per episode instead of the protocol's own."""
        arguments = dict(self.protocol.env.get("arguments") or {})
        arguments.pop("render_mode", None)
        own = arguments.pop("max_episode_steps", None) or DEFAULT_LIMIT
        env_id, shape = self.protocol.env["id"], self.protocol.image_shape or (64, 64)
        return World(env_id, num_envs, shape, max_episode_steps=limit or own, verbose=0, **arguments)

    def _pairs(self, dataset: Any, acting: subjects.Subject) -> Pairs:
        """Pairs from the part of the data that the protocol names, if the dataset is that which was split."""
        split = acting.split if self.split_of is None else subjects.split_of(self.split_of)
        part = split.get(self.protocol.part)
        total = sum(map(len, split.values()))
        held_out = self.recorder is None and part is not None and total == len(dataset.lengths)
        episodes = part if held_out else range(len(dataset.lengths))
        protocol = self.protocol
        return sample_pairs(
            dataset.lengths, list(episodes or ()), protocol.episodes, protocol.goal_offset, protocol.seed
        )

    def open_dataset(self, folder: str | Path | None = None, progress: bool | Progress = False) -> Any:
        """The recorded episodes that items start from; those of a recorder are recorded into `folder` if missing."""
        from stable_worldmodel.data import DatasetLockedError, load_dataset
        from stable_worldmodel.data.cache import get_cache_dir

        if self.recorder is None:
            return load_dataset(self.protocol.dataset or "")
        folder = (get_cache_dir() if folder is None else Path(folder)) / RECORDINGS
        path = folder / f"{self.protocol.env['id'].replace('/', '-')}-{self.recording_digest}.h5"
        path.parent.mkdir(parents=True, exist_ok=True)
        policy = make_policy(self.recorder, self.protocol.env["id"], seed=self.protocol.seed)
        options = {"variation": list(self.variation)} if self.variation else None
        with self.world(min(16, self.protocol.episodes)) as world:
            world.set_policy(policy)
            seed, episodes = self.protocol.seed, self.protocol.episodes
            try:
                world.collect(path, episodes, seed, options=options, mode="resume", progress=progress)
            except DatasetLockedError:  # somebody else who looked whether it is complete
                if len(load_dataset(path).lengths) < episodes:
                    raise
        return load_dataset(path)

    @property
    def recording_digest(self) -> str:
        """What the recording depends on; who is scored on it does not count."""
        protocol = self.protocol
        shape = list(protocol.image_shape or ())
        known = [dict(protocol.env), shape, protocol.episodes, protocol.seed, self.recorder, list(self.variation)]
        return hashlib.blake2b(json.dumps(known, sort_keys=True).encode(), digest_size=4).hexdigest()


_OWN = {"recorder", "split_of", "variation", "num_envs", "device"}
_PROTOCOL = set(EvalProtocol.__dataclass_fields__)


def from_dict(values: Mapping[str, Any]) -> Evaluation:
    """The evaluation that `to_dict` described."""
    shape = values["protocol"]["image_shape"]
    protocol = EvalProtocol(**{**values["protocol"], "image_shape": None if shape is None else tuple(shape)})
    return Evaluation(**{**values, "protocol": protocol, "variation": tuple(values["variation"])})
