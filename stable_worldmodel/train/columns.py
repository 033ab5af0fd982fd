"""What a model reads of a dataset: the columns of its clips, goals drawn for them, and the widths its config needs.

Shapes: B clips, T frames, K = frameskip env steps from one frame to the next.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from stable_worldmodel.data.composition import WrappedDataset
from stable_worldmodel.data.dataset import Dataset, Item
from stable_worldmodel.data.goals import GoalDataset
from stable_worldmodel.data.windows import WindowIndex
from stable_worldmodel.errors import ContractError, MissingKeyError
from stable_worldmodel.train.config import TrainConfig
from stable_worldmodel.wm.registry import ModelConfig
from stable_worldmodel.wm.training import GoalDraw, Reads

if TYPE_CHECKING:
    import torch

GOAL, ACTOR_GOAL = "goal_", "actor_goal_"
IMAGES, FEATURES = "pixels", "pixels_emb"
# Columns of which a frame needs all K rows that lead to it, and what is made of them.
_PER_STEP = {"reward": np.float32, "terminated": np.bool_}


def fit_model(config: TrainConfig, dataset: Dataset) -> ModelConfig:
    """The config of the model with the widths of the dataset, and with `config.columns` as what it observes.

    Raises MissingKeyError for a column that the dataset lacks, ContractError for one that the model cannot observe.
    """
    model: Any = config.model
    values: dict[str, Any] = {}
    if config.columns is not None:
        check_columns(model.model_type, config.columns, dataset)
        values = _observations(model, config.columns, dataset)
    elif getattr(model, "inputs", None):
        check_columns(model.model_type, [*model.inputs], dataset)
        values["inputs"] = {name: _width(name, model, dataset) for name in model.inputs}
    check_columns(model.model_type, ["action"], dataset)
    return dataclasses.replace(model, **values, action_dim=dataset.get_dim("action") * config.frameskip)


def _observations(model: Any, columns: Sequence[str], dataset: Dataset) -> dict[str, Any]:
    """Values of the model's config that make it observe `columns`."""
    images = [name for name in columns if _is_image(name, dataset)]
    inputs = {name: _width(name, model, dataset) for name in columns if name not in images}
    if not hasattr(model, "inputs") and [*columns] != ["pixels"]:
        raise ContractError(f"columns={[*columns]}: {model.model_type} observes pixels alone")
    if hasattr(model, "images"):
        return {"images": images, "inputs": inputs}
    if images != ["pixels"]:
        raise ContractError(f"columns={[*columns]}: {model.model_type} observes the image column pixels, and numbers")
    return {"inputs": inputs} if hasattr(model, "inputs") else {}


def check_columns(model_type: str, names: Sequence[str], dataset: Dataset) -> None:
    """MissingKeyError that names the model and the columns it lacks."""
    found = _available(dataset)
    missing = [name for name in names if name not in found]
    if missing:
        raise MissingKeyError(
            f"{model_type} reads {', '.join(map(repr, missing))}, which the dataset does not have: it has "
            f"{sorted(found)}"
        )


def reading_features(reads: Reads, images: bool) -> Reads:
    """`reads` with features in place of images, or beside them."""

    def swapped(names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(FEATURES if name == IMAGES else name for name in names)

    columns = (*swapped(reads.columns), *((IMAGES,) if images else ()))
    return dataclasses.replace(reads, columns=columns, observed=swapped(reads.observed))


class ClipDataset(WrappedDataset):
    """The windows of `dataset` with exactly the columns that `reads` names, and goals where it asks for them.

    A `reward` is the sum of those of the K env steps that lead to a frame, `terminated` says whether one of them ended
    the episode; the first row of an episode has neither. The current frame of a goal is the last but one, from which
    the last action of a clip that counts leaves. Which goals are drawn depends on (seed, epoch, clip), see `set_epoch`.

    episodes: those whose frames may be goals, the ones whose clips are read; default: all.
    to_end: as of `WindowIndex`: the last frame of a clip may be any up to the last row of an episode, where it
        terminated. Without it that row is only seen with a frameskip of 1. No clip is added for a model of goals, whose
        episodes end there, nor from a dataset with transforms, which makes the windows itself.
    """

    def __init__(
        self,
        dataset: Dataset,
        reads: Reads,
        seed: int,
        episodes: np.ndarray | None = None,
        *,
        to_end: bool = False,
    ) -> None:
        optional = [name for name in reads.optional if name in _available(dataset)]
        self.names = [*reads.columns, *optional]
        self._stored = [name for name in self.names if name not in _PER_STEP]
        self._observed = reads.observed
        draws = {GOAL: reads.goals, ACTOR_GOAL: reads.actor_goals}
        self._goals = {
            prefix: _goal_dataset(dataset, draw, reads.observed, seed + number, episodes)
            for number, (prefix, draw) in enumerate(draws.items())
            if draw is not None
        }
        # Goals in the future leave out the windows at the end of an episode.
        index = min((goals._index for goals in self._goals.values()), key=len, default=dataset._index)
        if to_end and not self._goals and not dataset.transforms:
            index = WindowIndex(
                dataset.lengths, dataset.offsets, dataset.num_steps, dataset.frameskip, to_end=True, check=False
            )
        super().__init__(dataset, index=index)
        self._per_step = {name: _per_macro_step(dataset, name) for name in self.names if name in _PER_STEP}
        if self._goals:  # a transform may need any column, else only what is read is fetched
            self._frames = dataset.with_windows(1, 1, keys_to_load=None if dataset.transforms else [*reads.observed])

    def set_epoch(self, epoch: int) -> None:
        """Draw the goals of this epoch from now on."""
        for goals in self._goals.values():
            goals.set_epoch(epoch)

    def _read_batch(self, indices: Sequence[int] | np.ndarray, out: Item | None) -> Item:
        indices = np.asarray(indices)
        if self.dataset.transforms:
            whole = super()._read_batch(indices, None)
            batch = {name: whole[name] for name in self._stored}
        else:
            batch = self._read_columns(self._stored, indices, out)
        rows, _ = self._index.rows(indices)  # (B, T)
        for name, table in self._per_step.items():
            batch[name] = _tensor(table[rows])
        for prefix, goals in self._goals.items():
            batch |= self._drawn(goals, prefix, indices, out)
        return batch

    def _drawn(self, goals: GoalDataset, prefix: str, indices: np.ndarray, out: Item | None) -> Item:
        """Goals (B, 1, ...) of clips `indices` and, for those of values, the frame of the clip at which they lie."""
        episode, start = self._index.locate(indices)
        goal_episode, goal_row = goals.sample_goals(goals._index.number(episode, start))
        reused = (
            None if out is None or self._frames.transforms else {name: out[prefix + name] for name in self._observed}
        )
        frames = self._frames.get_batch(self._frames._index.number(goal_episode, goal_row), reused)
        found = {prefix + name: frames[name] for name in self._observed}
        if prefix == GOAL:
            distance = goal_row - start
            inside = (goal_episode == episode) & (distance % self.frameskip == 0) & (distance >= 0)
            found["goal_step"] = _tensor(np.where(inside, distance // self.frameskip, -1))  # (B,) int64
        return found


def _goal_dataset(
    dataset: Dataset, draw: GoalDraw, observed: Sequence[str], seed: int, episodes: np.ndarray | None
) -> GoalDataset:
    return GoalDataset(
        dataset,
        draw.probabilities,
        draw.gamma,
        current_goal_offset=max(1, dataset.num_steps - 1),
        goal_keys={name: GOAL + name for name in observed},
        seed=seed,
        episodes=episodes,
    )


def _per_macro_step(dataset: Dataset, name: str) -> np.ndarray:
    """For every row, the sum of a column over the K rows that lead to it within its episode; NaN counts as 0."""
    width = dataset.get_dim(name)
    if width != 1:
        raise ContractError(f"column {name!r} has {width} numbers per row: expected one")
    values = np.nan_to_num(dataset.get_col_data(name).reshape(-1).astype(np.float64), nan=0.0)  # (rows,)
    if dataset.frameskip == 1:
        return values.astype(_PER_STEP[name])
    sums = np.concatenate([[0.0], np.cumsum(values)])  # (rows + 1,)
    first = np.zeros(len(values), np.int64)  # of the episode of each row
    for offset, length in zip(dataset.offsets.tolist(), dataset.lengths.tolist(), strict=True):
        first[offset : offset + length] = offset
    row = np.arange(len(values))
    summed = sums[row + 1] - sums[np.maximum(first, row - dataset.frameskip + 1)]
    return (summed > 0.5) if _PER_STEP[name] is np.bool_ else summed.astype(_PER_STEP[name])


def _available(dataset: Dataset) -> Mapping[str, Any]:
    """The columns a dataset has; of one with transforms, what these make of a window."""
    if not dataset.transforms:
        return dataset.columns
    return {**dict.fromkeys(_PER_STEP.keys() & dataset.columns.keys()), **dataset.get_batch([0])}


def _is_image(name: str, dataset: Dataset) -> bool:
    return name in dataset.columns and dataset.columns[name].kind == "image"


def _width(name: str, model: Any, dataset: Dataset) -> int:
    if dataset.transforms:
        return int(np.prod(dataset.get_batch([0])[name].shape[2:]))
    if dataset.columns[name].kind != "number":
        raise ContractError(f"{model.model_type} cannot observe {name!r}, which holds {dataset.columns[name].kind}")
    return dataset.get_dim(name)


def _tensor(values: np.ndarray) -> torch.Tensor:
    import torch

    return torch.from_numpy(np.ascontiguousarray(values))
