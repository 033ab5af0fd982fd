"""What a factor does to a compiled model: small immutable descriptions that write a few arrays of `mjModel`.

An effect is written onto a model whose arrays are as compiled, or as effects before it left them, and only where the
value differs from the default; so at default nothing is touched. Names are those of the MJCF file; array names are
MuJoCo's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, ClassVar

import numpy as np

from stable_worldmodel.errors import ContractError

RGB = slice(0, 3)
_OBJECTS = {
    "actuator": "mjOBJ_ACTUATOR",
    "body": "mjOBJ_BODY",
    "cam": "mjOBJ_CAMERA",
    "dof": "mjOBJ_JOINT",
    "geom": "mjOBJ_GEOM",
    "jnt": "mjOBJ_JOINT",
    "light": "mjOBJ_LIGHT",
    "mat": "mjOBJ_MATERIAL",
    "site": "mjOBJ_SITE",
    "tex": "mjOBJ_TEXTURE",
}
Slot = tuple[str, Any]  # name and index of a part of an array of the model


def array(model: Any, name: str) -> np.ndarray:
    """The array of this name, a view; "opt.gravity" is an array of `model.opt`."""
    return reduce(getattr, name.split("."), model)


def find(model: Any, kind: str, name: str) -> int:
    """The number of a named object; `kind` is the first part of its arrays' names. ContractError if it is not there.

    For "dof" it is the first degree of freedom of the joint of that name.
    """
    import mujoco

    number = mujoco.mj_name2id(model, getattr(mujoco.mjtObj, _OBJECTS[kind]), name)
    if number < 0:
        raise ContractError(f"the model has no {kind} {name!r}")
    return int(model.jnt_dofadr[number]) if kind == "dof" else number


def rows(model: Any, field: str, names: str | Sequence[str] | None) -> list[int] | slice:
    """Rows of the array `field` that belong to the named objects; all for None."""
    if names is None:
        return slice(None)
    kind = field.partition("_")[0]
    return [find(model, kind, name) for name in ([names] if isinstance(names, str) else names)]


@dataclass(frozen=True)
class Effect:
    """Base of all effects.

    Attributes:
        late: written after a task has placed its things at reset, not before.
        structural: changes masses or where shapes are, so what MuJoCo derives from them is computed again.
    """

    late: ClassVar[bool] = False
    structural: ClassVar[bool] = False

    def slots(self, model: Any) -> list[Slot]:
        """What `write` may change."""
        raise NotImplementedError

    def default(self, model: Any) -> Any:
        """The value at which the model is as compiled."""
        raise NotImplementedError

    def write(self, model: Any, value: Any, default: Any) -> None:
        """Make the model show `value`."""
        raise NotImplementedError

    def textures(self, model: Any) -> set[int]:
        """Numbers of the textures that it repaints."""
        return set()

    @property
    def _cut(self) -> Any:
        """The columns it writes; all unless it says otherwise."""
        columns = getattr(self, "columns", None)
        return slice(None) if columns is None else columns


@dataclass(frozen=True)
class Put(Effect):
    """The value itself, in columns `columns` of the rows of `names`: colours, gravity, friction of a joint."""

    field: str
    names: str | tuple[str, ...] | None
    columns: Any = None

    def slots(self, model: Any) -> list[Slot]:
        return [(self.field, rows(model, self.field, self.names))]

    def default(self, model: Any) -> Any:
        values = array(model, self.field)[rows(model, self.field, self.names)]
        if self.names is None:
            return _nominal(values[self._cut])
        return _nominal(values[0] if values.ndim == 1 else values[0, self._cut])

    def write(self, model: Any, value: Any, default: Any) -> None:
        whole, chosen = array(model, self.field), rows(model, self.field, self.names)
        if self.names is None or whole.ndim == 1:
            index = self._cut if self.names is None else chosen
            whole[index] = np.reshape(value, np.shape(whole[index]))
        else:
            part = whole[chosen]
            part[..., self._cut] = value
            whole[chosen] = part


@dataclass(frozen=True)
class Paint(Effect):
    """Colour of geoms or sites, apart from others of the same material."""

    kind: str  # "geom" or "site"
    names: tuple[str, ...]

    def slots(self, model: Any) -> list[Slot]:
        return [(self._field, rows(model, self._field, self.names))]

    def default(self, model: Any) -> Any:
        return _nominal(self._stock(model)[RGB])

    def write(self, model: Any, value: Any, default: Any) -> None:
        rgba = np.append(value, self._stock(model)[3])
        # MuJoCo takes exactly this grey for "no colour given".
        array(model, self._field)[rows(model, self._field, self.names)] = np.where(rgba == 0.5, 0.5001, rgba)

    @property
    def _field(self) -> str:
        return f"{self.kind}_rgba"

    def _stock(self, model: Any) -> np.ndarray:
        row = find(model, self.kind, self.names[0])
        material = array(model, f"{self.kind}_matid")[row]
        return model.mat_rgba[material] if material >= 0 else array(model, self._field)[row]


@dataclass(frozen=True)
class Scale(Effect):
    """Arrays multiplied by value / default, so that several objects keep their proportions.

    The default is the column `columns` of the first of the rows of `of` (default: of `names`).
    """

    fields: tuple[str, ...]
    names: str | tuple[str, ...] | None = None
    columns: Any = None
    of: str | None = None

    def slots(self, model: Any) -> list[Slot]:
        return [(field, rows(model, field, self.names)) for field in self.fields]

    def default(self, model: Any) -> Any:
        field = self.fields[0]
        first = rows(model, field, self.of or self.names)
        return _nominal(np.ravel(array(model, field)[first][..., self._cut])[0])

    def write(self, model: Any, value: Any, default: Any) -> None:
        ratio = float(np.asarray(value).reshape(())) / float(np.asarray(default).reshape(()))
        for field in self.fields:
            whole, chosen = array(model, field), rows(model, field, self.names)
            part = whole[chosen]
            part[..., self._cut] *= ratio
            whole[chosen] = part


@dataclass(frozen=True)
class Density(Scale):
    """Density of bodies, or their mass: mass and inertia in proportion, form and centre as they are."""

    fields: tuple[str, ...] = ("body_mass", "body_inertia")
    structural: ClassVar[bool] = True


@dataclass(frozen=True)
class SharedDensity(Density):
    """Density of bodies in a model of fixed total mass: what they gain the whole loses."""

    def slots(self, model: Any) -> list[Slot]:
        return [(field, slice(None)) for field in self.fields]

    def write(self, model: Any, value: Any, default: Any) -> None:
        total = model.body_mass.sum()
        super().write(model, value, default)
        ratio = total / model.body_mass.sum()
        for field in self.fields:
            array(model, field)[:] *= ratio


@dataclass(frozen=True)
class BallRadius(Effect):
    """Radius of a sphere at the centre of a body that has no other shape; density stays, so mass and inertia follow."""

    geom: str
    body: str
    structural: ClassVar[bool] = True

    def slots(self, model: Any) -> list[Slot]:
        geom, body = find(model, "geom", self.geom), find(model, "body", self.body)
        return [
            *((field, [geom]) for field in ("geom_size", "geom_rbound", "geom_aabb")),
            *((field, [body]) for field in ("body_mass", "body_inertia", "body_margin")),
            ("bvh_aabb", [int(model.body_bvhadr[body])]),
        ]

    def default(self, model: Any) -> Any:
        return model.geom_size[find(model, "geom", self.geom), 0]

    def write(self, model: Any, value: Any, default: Any) -> None:
        geom, body = find(model, "geom", self.geom), find(model, "body", self.body)
        radius = float(np.asarray(value).reshape(()))
        ratio = radius / float(np.asarray(default).reshape(()))
        model.geom_size[geom, 0] = model.geom_rbound[geom] = radius
        model.geom_aabb[geom, 3:] = radius
        model.bvh_aabb[model.body_bvhadr[body], 3:] = radius
        model.body_mass[body] *= ratio**3
        model.body_inertia[body] *= ratio**5


@dataclass(frozen=True)
class Checker(Effect):
    """The two colours (2, 3) in 0…1 of a chequered texture; lines of a third colour keep it."""

    texture: str

    def slots(self, model: Any) -> list[Slot]:
        return [("tex_data", self._part(model))]

    def default(self, model: Any) -> Any:
        return np.stack(self._fields(self._pixels(model))) / 255.0

    def write(self, model: Any, value: Any, default: Any) -> None:
        number = find(model, "tex", self.texture)
        pixels = self._pixels(model)
        image = pixels.reshape(int(model.tex_height[number]), int(model.tex_width[number]), 3)
        # Rows within a field are alike, so one of each run is painted and copied over the run: many times faster.
        starts = np.flatnonzero(np.append(True, (image[1:] != image[:-1]).any(axis=(1, 2))))
        painted = image[starts]
        fields = [(painted == color).all(axis=2) for color in self._fields(pixels)]
        for field, color in zip(fields, np.rint(np.asarray(value) * 255.0).astype(np.uint8), strict=True):
            painted[field] = color
        image[:] = np.repeat(painted, np.diff(np.append(starts, len(image))), axis=0)

    def textures(self, model: Any) -> set[int]:
        return {find(model, "tex", self.texture)}

    def _part(self, model: Any) -> slice:
        number = find(model, "tex", self.texture)
        size = model.tex_height[number] * model.tex_width[number] * model.tex_nchannel[number]
        return slice(int(model.tex_adr[number]), int(model.tex_adr[number] + size))

    def _pixels(self, model: Any) -> np.ndarray:
        return model.tex_data[self._part(model)].reshape(-1, 3)

    @staticmethod
    def _fields(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Colours of the first field, whose middle is a quarter down and across, and of the one beside it."""
        side = int(len(pixels) ** 0.5)
        middle = side // 4 * side + side // 4
        return pixels[middle].copy(), pixels[middle + side // 2].copy()


@dataclass(frozen=True)
class Locked(Effect):
    """0: the joint stays where the episode starts; 1: it is free.

    It is held by an inertia that nothing moves, which is stable with every integrator and needs no constraints.
    """

    joint: str
    structural: ClassVar[bool] = True
    inertia: ClassVar[float] = 1e6  # kg m²

    def slots(self, model: Any) -> list[Slot]:
        return [("dof_armature", [find(model, "dof", self.joint)])]

    def default(self, model: Any) -> Any:
        return 1

    def write(self, model: Any, value: Any, default: Any) -> None:
        model.dof_armature[find(model, "dof", self.joint)] = self.inertia


@dataclass(frozen=True)
class Outline(Effect):
    """Form of a geom or site that nothing touches: 0 a box, 1 a sphere, as large as the stock form is wide."""

    kind: str  # "geom" or "site"
    name: str
    late: ClassVar[bool] = True
    forms: ClassVar[tuple[int, ...]] = (6, 2)  # mjGEOM_BOX, mjGEOM_SPHERE

    def slots(self, model: Any) -> list[Slot]:
        row = [find(model, self.kind, self.name)]
        return [(f"{self.kind}_{field}", row) for field in ("type", "size")]

    def default(self, model: Any) -> Any:
        return self.forms.index(int(array(model, f"{self.kind}_type")[find(model, self.kind, self.name)]))

    def write(self, model: Any, value: Any, default: Any) -> None:
        row = find(model, self.kind, self.name)
        size = array(model, f"{self.kind}_size")
        array(model, f"{self.kind}_type")[row] = self.forms[value]
        size[row] = size[row, 0] if self.forms[value] == 6 else (size[row].max(), 0, 0)


@dataclass(frozen=True)
class Shown(Effect):
    """Whether a geom or site is drawn: 1 yes, 0 no."""

    kind: str
    name: str
    late: ClassVar[bool] = True

    def slots(self, model: Any) -> list[Slot]:
        row = [find(model, self.kind, self.name)]
        return [(f"{self.kind}_{field}", row) for field in ("group", "rgba")]

    def default(self, model: Any) -> Any:
        row = find(model, self.kind, self.name)
        return int(array(model, f"{self.kind}_group")[row] < 3)  # MuJoCo draws groups 0, 1 and 2 unless told otherwise

    def write(self, model: Any, value: Any, default: Any) -> None:
        row = find(model, self.kind, self.name)
        array(model, f"{self.kind}_group")[row] = 0 if value else 5
        if value:
            array(model, f"{self.kind}_rgba")[row, 3] = 1  # a task may have made it transparent


@dataclass(frozen=True)
class Slope(Effect):
    """Angle in degrees by which a horizontal plane is turned about the world's y axis, through the origin.

    Its normal becomes (sin, 0, cos).
    """

    geom: str
    structural: ClassVar[bool] = True

    def slots(self, model: Any) -> list[Slot]:
        row = [find(model, "geom", self.geom)]
        return [(field, row) for field in ("geom_quat", "geom_pos", "geom_sameframe")]

    def default(self, model: Any) -> Any:
        return 0.0

    def write(self, model: Any, value: Any, default: Any) -> None:
        row = find(model, "geom", self.geom)
        angle = np.deg2rad(float(np.asarray(value).reshape(())))
        x, y, z = model.geom_pos[row]
        model.geom_pos[row] = x * np.cos(angle) + z * np.sin(angle), y, z * np.cos(angle) - x * np.sin(angle)
        model.geom_quat[row] = np.cos(angle / 2), 0, np.sin(angle / 2), 0
        model.geom_sameframe[row] = 0  # else MuJoCo copies the body's orientation


def _nominal(values: Any) -> Any:
    """What was written in the MJCF file: float32 arrays have lost its last digits."""
    return np.round(values.astype(np.float64), 6) if values.dtype == np.float32 else values
