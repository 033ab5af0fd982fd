"""Tables of factors, and the one engine that samples, applies, restores and documents them for all MuJoCo envs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from stable_worldmodel import spaces
from stable_worldmodel.envs.mujoco.effects import Effect, Slot, array
from stable_worldmodel.envs.variation import FactorSpace
from stable_worldmodel.errors import ContractError

# What `mj_setConst` derives; part of the model, so put back with what it is derived from.
_DERIVED = (
    "body_subtreemass",
    "body_invweight0",
    "dof_invweight0",
    "dof_M0",
    "tendon_invweight0",
    "tendon_length0",
    "actuator_acc0",
    "actuator_length0",
    *(f"cam_{name}0" for name in ("pos", "poscom", "mat")),
    *(f"light_{name}0" for name in ("pos", "poscom", "dir")),
)
_LOOKS = ("meansize", "extent", "center")  # of model.stat: decide how a scene is drawn, not how it moves


@dataclass(frozen=True)
class Factor:
    """One row of a table.

    Attributes:
        name: dotted, "group.name".
        effect: what it does to the model.
        low, high, shape, dtype: of its `Box`; `high` None stands for a `Discrete(low)`.
        default: None reads it from the compiled model.
        about: what it is, for people.
        neutral: the value at which the model is as compiled; None: the default.
        fits: a function of the value that says whether it is legal.
    """

    name: str
    effect: Effect
    low: Any
    high: Any = None
    shape: tuple[int, ...] = (1,)
    dtype: Any = np.float64
    default: Any = None
    about: str = ""
    neutral: Any = None
    fits: Callable[[Any], bool] | None = None

    def space(self, model: Any) -> Any:
        """Its space, with the default that leaves `model` as it is."""
        default = self.effect.default(model) if self.default is None else self.default
        if self.high is None:
            return spaces.Discrete(int(self.low), init_value=int(default))
        return spaces.Box(self.low, self.high, self.shape, self.dtype, init_value=default, constrain_fn=self.fits)


def color(name: str, effect: Effect, about: str = "", default: Any = None, shape: tuple[int, ...] = (3,)) -> Factor:
    """A colour, or several, in 0…1."""
    return Factor(name, effect, 0.0, 1.0, shape, np.float64, default, about)


def number(
    name: str, low: float, high: float, effect: Effect, about: str = "", default: Any = None, dtype: Any = np.float32
) -> Factor:
    """One number, shape (1,)."""
    return Factor(name, effect, low, high, (1,), dtype, default, about)


def switch(name: str, effect: Effect, about: str = "", default: Any = None, neutral: Any = None) -> Factor:
    """0 or 1."""
    return Factor(name, effect, 2, None, (), np.int64, default, about, neutral)


class FactorEngine:
    """The factors of one compiled model.

    `restore` puts the model back and writes the early effects of the current values; `finish` writes the late ones,
    after a task has placed its things. Both take what the factors of `space` say at that moment.

    Args:
        table: the factors, in the order in which they are drawn and written.
        model: as it was compiled.

    Attributes:
        space: the variation space.
        own_textures: numbers of the textures that differ from the compiled ones now.
        changed_textures: those of them that `restore` has just repainted.
    """

    def __init__(self, table: Sequence[Factor], model: Any):
        self.table = tuple(table)
        groups: dict[str, dict[str, Any]] = {}
        for factor in self.table:
            group, _, name = factor.name.partition(".")
            if not name or name in groups.setdefault(group, {}):
                raise ContractError(f"factor {factor.name!r}: expected 'group.name', once")
            groups[group][name] = factor.space(model)
        self.space = FactorSpace(groups)
        # Of the model, not of the space: `init_value` of an env may move the defaults of that.
        self._neutral = {
            factor.name: self.space.factor(factor.name).init_value if factor.neutral is None else factor.neutral
            for factor in self.table
        }
        self._base = {factor.name: _copy(model, factor.effect.slots(model)) for factor in self.table}
        bounds = slice(0, int(model.body_bvhnum.sum()))  # of bodies; those of meshes follow and stay
        derived = [(name, slice(None)) for name in _DERIVED if hasattr(model, name)]
        self._derived = _copy(model, [*derived, ("bvh_aabb", bounds)])
        self._meaninertia = float(model.stat.meaninertia)
        self._rebuilt = False  # whether what is derived is not as compiled
        self._painted: dict[str, tuple[set[int], bytes]] = {}  # factor -> its textures, and the value they show
        self.own_textures: set[int] = set()
        self.changed_textures: set[int] = set()

    def restore(self, model: Any, scratch: Any) -> None:
        """Put every array back as compiled, then write the early effects. `scratch`: an MjData that nobody reads."""
        painted = {}
        for factor in self.table:
            if factor.effect.textures(model) and factor.name not in self._painted:
                continue  # textures are large, and nobody else writes them
            _write_all(model, self._base[factor.name])
        for factor, value in self._changed(late=False):
            factor.effect.write(model, value, self._neutral[factor.name])
            textures = factor.effect.textures(model)
            if textures:
                painted[factor.name] = textures, np.asarray(value).tobytes()
        before, self._painted = self._painted, painted
        self.own_textures = set().union(*(textures for textures, _ in painted.values()))
        repainted = [painted[name][0] for name in painted if before.get(name) != painted[name]]
        self.changed_textures = set().union(*repainted)
        self._derive(model, scratch)

    def finish(self, model: Any) -> None:
        """Write the late effects."""
        for factor, value in self._changed(late=True):
            factor.effect.write(model, value, self._neutral[factor.name])

    @contextmanager
    def pristine_textures(self, model: Any) -> Iterator[None]:
        """The model with its textures as compiled, for a while."""
        slots = [slot for name in self._painted for slot in self._base[name]]
        now = _copy(model, [(name, index) for name, index, _ in slots])
        _write_all(model, slots)
        try:
            yield
        finally:
            _write_all(model, now)

    def document(self) -> list[dict[str, Any]]:
        """One mapping per factor: `factor`, `low`, `high`, `shape`, `default`, `about`."""
        rows = []
        for factor in self.table:
            space = self.space.factor(factor.name)
            discrete = factor.high is None
            rows.append(
                {
                    "factor": factor.name,
                    "low": 0 if discrete else factor.low,
                    "high": factor.low - 1 if discrete else factor.high,
                    "shape": factor.shape,
                    "default": np.asarray(space.init_value).tolist(),
                    "about": factor.about,
                }
            )
        return rows

    def _changed(self, late: bool) -> Iterator[tuple[Factor, Any]]:
        """Factors whose value is not the one at which the model is as compiled, with that value."""
        for factor in self.table:
            if factor.effect.late == late:
                value = self.space.value_of(factor.name)
                if not np.array_equal(value, self._neutral[factor.name]):
                    yield factor, value

    def _derive(self, model: Any, scratch: Any) -> None:
        """Compute again what is derived, or put it back."""
        import mujoco

        if self._rebuilt:
            _write_all(model, self._derived)
            model.stat.meaninertia = self._meaninertia
        self._rebuilt = any(factor.effect.structural for factor, _ in self._changed(late=False))
        if self._rebuilt:
            kept = {name: np.copy(getattr(model.stat, name)) for name in _LOOKS}
            mujoco.mj_setConst(model, scratch)
            for name, value in kept.items():
                setattr(model.stat, name, value if value.ndim else float(value))


def _copy(model: Any, slots: Sequence[Slot]) -> list[tuple[str, Any, np.ndarray]]:
    return [(name, index, np.array(array(model, name)[index])) for name, index in slots]


def _write_all(model: Any, parts: Sequence[tuple[str, Any, np.ndarray]]) -> None:
    for name, index, values in parts:
        array(model, name)[index] = values
