"""The columns of this package and the features of LeRobot: names, and which row holds what.

Our row `t` holds the reward and the flags of the step that led to it; LeRobot's holds those of the step that follows,
as `next.reward` and so on. Our last row has no action. LeRobot has no such row: it is stored with the action before it
repeated, and the feature `is_terminal_obs` says which rows these are. Every `next.*` feature has one value more than
there are steps; the value of our first row, mostly NaN, goes into the last row, with zero in place of NaN. Which
columns of an episode had such a missing value is noted with the episode, so that all rows come back as they were.

In sets of other programs an episode of L steps has L rows, without the last observation. The `next.*` features are
columns there too, because the reward and the flags of the last step have no row of their own to go to.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from stable_worldmodel.data.columns import Column
from stable_worldmodel.data.episode import Columns
from stable_worldmodel.data.formats.lerobot.info import IMAGE_KINDS, INDEX_FEATURES, Info, Json
from stable_worldmodel.errors import ContractError

ACTION, TASK, DONE, TERMINAL = "action", "task", "next.done", "is_terminal_obs"
PREFIX = "observation."
FRAME, IMAGES = "observation.image", "observation.images."
STATE, ENV_STATE = "observation.state", "observation.environment_state"
ARRIVAL = {
    "reward": "next.reward",
    "terminated": "next.terminated",
    "truncated": "next.truncated",
    "success": "next.success",
}
MAX_AXES = 5
_PLAIN = (ACTION, "step_idx", "seed", "id", "policy")  # keep their names
_STATES = ("proprio", "agent_pos", "observation")  # the first of them that there is becomes the state
_IMAGE_AXES = ["height", "width", "channels"]
_UNREADABLE = ("language",)


@dataclass(frozen=True)
class Link:
    """One column and the feature it is stored as. `shift`: the feature is about the step that follows.

    native: column of another program's set; the first value of a shifted one is missing.
    """

    name: str
    feature: str
    column: Column
    shift: bool = False
    native: bool = False


# -- our columns as features -----------------------------------------------------------------------------------------


def link_columns(columns: Mapping[str, Column]) -> dict[str, Link]:
    """Choose a feature for each column; the same ones whatever the order."""
    taken = {*INDEX_FEATURES, TERMINAL}
    if TASK in columns and columns[TASK].kind != "text":
        taken.add(TASK)
    state = next((name for name in _STATES if name in columns and _is_vector(columns[name])), None)
    links = {}
    for name in sorted(columns, key=lambda name: (not name.startswith((PREFIX, "next.")), name)):
        column = columns[name]
        shift = name in ARRIVAL and column.kind == "number"
        wanted = ARRIVAL[name] if shift else STATE if name == state else _feature_of(name, column)
        feature = next(f for f in (wanted, f"{PREFIX}{name}", name, f"swm.{name}") if f not in taken)
        taken.add(feature)
        links[name] = Link(name, feature, column, shift and feature == wanted)
    return dict(sorted(links.items()))


def _feature_of(name: str, column: Column) -> str:
    if name.startswith((PREFIX, "next.", "variation.")) or name in _PLAIN or column.kind == "text":
        return name
    if name == "pixels" and column.kind == "image":
        return FRAME
    if name.startswith(("pixels_", "pixels.")) and name[7:] and column.kind == "image":
        return f"{IMAGES}{name[7:]}"
    return ENV_STATE if name == "state" and _is_vector(column) else f"{PREFIX}{name}"


def _is_vector(column: Column) -> bool:
    return column.kind == "number" and len(column.shape) <= 1


def features_of(links: Iterable[Link], videos: bool, keep_last: bool) -> dict[str, Json]:
    """Describe the features of a new dataset: videos, or stills where these lose what a video cannot hold."""
    links = list(links)
    features = {link.feature: _describe(link, videos) for link in links if link.feature != TASK}
    names = {link.name for link in links}
    if names & {"terminated", "truncated"} and DONE not in features:
        features[DONE] = _flag()
    if keep_last and _has_actions(links):
        features[TERMINAL] = _flag()
    for name, dtype in INDEX_FEATURES.items():
        features[name] = {"dtype": dtype, "shape": [1], "names": None}
    return features


def _has_actions(links: Iterable[Link]) -> bool:
    return any(link.name == ACTION and link.column.kind == "number" for link in links)


def _flag() -> Json:
    return {"dtype": "bool", "shape": [1], "names": None}


def _describe(link: Link, videos: bool) -> Json:
    column = link.column
    if column.kind == "text":
        return {"dtype": "string", "shape": [1], "names": None}
    if column.kind == "number":
        return {"dtype": column.dtype.name, "shape": list(column.shape) or [1], "names": None}
    kind = "video" if videos and column.shape[2] == 3 else "image"
    return {"dtype": kind, "shape": list(column.shape), "names": list(_IMAGE_AXES)}


def links_as_json(links: Mapping[str, Link]) -> Json:
    return {
        name: {
            "feature": link.feature,
            "dtype": link.column.type_name,
            "shape": list(link.column.shape),
            **({"shift": True} if link.shift else {}),
        }
        for name, link in links.items()
    }


# -- features as our columns -----------------------------------------------------------------------------------------


def links_of(info: Info, camera: str | None = None) -> dict[str, Link]:
    """The columns of a dataset, sorted by name. `camera`: the feature, or the end of its name, that is `pixels`."""
    noted = info.ours.get("columns")
    links = _noted_links(info, noted) if noted else _foreign_links(info, camera)
    return {link.name: link for link in sorted(links, key=lambda link: link.name)}


def _noted_links(info: Info, noted: Any) -> list[Link]:
    try:
        links = [
            Link(name, entry["feature"], _column(entry["dtype"], entry["shape"]), bool(entry.get("shift")))
            for name, entry in noted.items()
        ]
        gone = [link.feature for link in links if link.feature != TASK and link.feature not in info.features]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ContractError(f"{info.path}: meta/info.json is damaged: {error!r}") from error
    if gone:
        raise ContractError(f"{info.path}: meta/info.json has no features {gone}, which were recorded")
    if info.ours.get("keep_last", True):
        return links
    natives = [Link(link.feature, link.feature, link.column) for link in links if link.shift]
    return [*map(without_last, links), *natives]


def without_last(link: Link) -> Link:
    """The link in a set whose episodes have no row after the last action."""
    return replace(link, native=link.shift)


def _foreign_links(info: Info, camera: str | None) -> list[Link]:
    camera = _primary_camera(info, camera)
    links = [Link(TASK, TASK, Column(np.dtype(object), (), "text"))]
    links.append(Link("step_idx", "frame_index", Column(np.dtype(np.int64), (), "number")))
    features = [name for name in info.features if name not in (*INDEX_FEATURES, TERMINAL)]
    features = [name for name in features if info.features[name]["dtype"] not in _UNREADABLE]
    taken = {TASK, "step_idx"}
    for feature in features:
        name = _name_of(feature, camera)
        name = feature if name in taken or name in features else name
        taken.add(name)
        links.append(Link(name, feature, _foreign_column(info, feature)))
    native = TERMINAL not in info.features
    for link in links[2:]:
        arrival = _arrival_of(link.feature, features)
        if arrival and arrival not in taken and link.column.kind == "number":
            links.append(Link(arrival, link.feature, link.column, shift=True, native=native))
    return links


def _arrival_of(feature: str, features: Sequence[str]) -> str | None:
    """Our column that tells on arrival what this feature tells before. Without more, done means terminated."""
    if feature == DONE:
        return None if ARRIVAL["terminated"] in features else "terminated"
    return next((name for name, native in ARRIVAL.items() if native == feature), None)


def _name_of(feature: str, camera: str | None) -> str:
    if feature == camera:
        return "pixels"
    if feature.startswith(IMAGES):
        return f"pixels_{feature.removeprefix(IMAGES)}"
    known = {STATE: "proprio", ENV_STATE: "state"}
    return known.get(feature) or feature.removeprefix(PREFIX) or feature


def _primary_camera(info: Info, camera: str | None) -> str | None:
    cameras = info.named(*IMAGE_KINDS)
    if camera is None:
        return FRAME if FRAME in cameras else cameras[0] if len(cameras) == 1 else None
    found = [name for name in cameras if camera in (name, name.removeprefix(IMAGES))]
    if not found:
        raise ContractError(f"{info.path}: primary_camera={camera!r}: expected one of {cameras}")
    return found[0]


def _foreign_column(info: Info, feature: str) -> Column:
    """The type of a column. A single number is a scalar, except for actions and observations."""
    described = info.features[feature]
    if described["dtype"] in IMAGE_KINDS:
        return Column(np.dtype(np.uint8), (), "image")  # of a size that the frames tell
    shape = described["shape"]
    vector = feature == ACTION or feature.startswith(PREFIX)
    try:
        return _column(described["dtype"], [] if shape == [1] and not vector else shape)
    except (TypeError, ValueError) as error:
        raise ContractError(f"{info.path}: feature {feature!r}: {error}") from error


def _column(dtype: str, shape: Sequence[int]) -> Column:
    if dtype in ("string", "text"):
        return Column(np.dtype(object), (), "text")
    return Column.numeric(np.dtype(dtype), tuple(int(size) for size in shape))


# -- rows ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stored:
    """An episode as features: `rows` of them, and the columns of which a missing value was replaced."""

    rows: int
    features: Columns
    filled: tuple[str, ...]


def encode(columns: Columns, links: Mapping[str, Link], keep_last: bool) -> Stored:
    """Turn an episode into features, images left out; the flags are among them whether stored or not.

    `keep_last=False` drops a last row without action. Raises ContractError when no row would be left.
    """
    rows = len(next(iter(columns.values())))
    filled, features = [], {}
    terminal = _has_actions(links.values()) and ends_without_action(columns)
    stop = rows - 1 if terminal and not keep_last else rows
    if stop == 0:
        raise ContractError("an episode of one row, without an action, has nothing to store with keep_last=False")
    for name, link in links.items():
        if link.column.kind == "image":
            continue
        values = columns[name]
        if link.shift:
            values = np.roll(values, -1, axis=0)
            if values.dtype.kind == "f" and _is_missing(values[-1]):
                values[-1] = 0
                filled.append(name)
        elif name == ACTION and terminal and keep_last:
            values = values.copy()
            values[-1] = values[-2] if rows > 1 and not _is_missing(values[-2]) else 0
            filled.append(name)
        features[link.feature] = values[:stop]
    features[TERMINAL] = (np.arange(stop) == rows - 1) & terminal
    if DONE not in features:
        flags = [columns[name] for name in ("terminated", "truncated") if name in columns]
        done = [np.roll(_any(values), -1) for values in flags if values.dtype.kind in "biuf"]
        features[DONE] = np.logical_or.reduce([np.zeros(rows, dtype=bool), *done])[:stop]
    return Stored(stop, features, tuple(filled))


def ends_without_action(columns: Mapping[str, Any]) -> bool:
    """Whether the last row of an episode is an observation only."""
    return ACTION in columns and _is_missing(np.asarray(columns[ACTION][-1]))


def decode(values: np.ndarray, link: Link, lengths: np.ndarray, filled: np.ndarray) -> np.ndarray:
    """Turn the rows of a feature, all episodes, into those of a column. `filled` (E,): see `Stored`."""
    ends = np.cumsum(lengths)
    starts = ends - lengths
    if link.shift:
        shifted = np.empty_like(values)
        shifted[1:] = values[:-1]
        shifted[starts] = values[ends - 1]
        values = shifted
        missing = starts if link.native else starts[filled]
        values[missing] = np.nan if values.dtype.kind == "f" else 0
    elif link.name == ACTION and filled.any():
        values = values.copy()
        values[ends[filled] - 1] = np.nan if values.dtype.kind == "f" else _filler(values.dtype)
    return values


def _is_missing(row: np.ndarray) -> bool:
    """Whether a row of numbers stands for no value: NaN, or the smallest int64."""
    if row.dtype.kind == "f":
        return bool(np.isnan(row).all())
    return row.dtype == np.int64 and bool((row == _filler(row.dtype)).all())


def _filler(dtype: np.dtype) -> Any:
    return np.iinfo(np.int64).min if dtype == np.int64 else 0


def _any(values: np.ndarray) -> np.ndarray:
    return np.asarray(values.reshape(len(values), -1).astype(bool).any(axis=1))
