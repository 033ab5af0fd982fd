"""Effects that scenes of things on a table need: sizes of cubes, where cameras look, what an env itself places."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from stable_worldmodel.envs.mujoco.effects import Checker, Effect, Slot, find, rows


@dataclass(frozen=True)
class BoxSize(Effect):
    """Half extents in m of cubes, each alone in the middle of a body; density stays, so mass and inertia follow.

    One value per geom. `ghosts` are further geoms of the same sizes, which have no mass and touch nothing.
    """

    geoms: tuple[str, ...]
    bodies: tuple[str, ...]
    ghosts: tuple[str, ...] = ()
    structural: ClassVar[bool] = True

    def slots(self, model: Any) -> list[Slot]:
        geoms = [find(model, "geom", name) for name in (*self.geoms, *self.ghosts)]
        bodies = [find(model, "body", name) for name in self.bodies]
        return [
            *((field, geoms) for field in ("geom_size", "geom_rbound", "geom_aabb")),
            *((field, bodies) for field in ("body_mass", "body_inertia", "body_margin")),
            ("bvh_aabb", [int(model.body_bvhadr[body]) for body in bodies]),
        ]

    def default(self, model: Any) -> Any:
        return model.geom_size[[find(model, "geom", name) for name in self.geoms], 0]

    def write(self, model: Any, value: Any, default: Any) -> None:
        halves = np.broadcast_to(np.asarray(value, np.float64).reshape(-1), (len(self.geoms),))
        ratios = halves / np.broadcast_to(np.asarray(default, np.float64).reshape(-1), halves.shape)
        for name, half in zip((*self.geoms, *self.ghosts), (*halves, *halves), strict=False):
            geom = find(model, "geom", name)
            model.geom_size[geom] = model.geom_aabb[geom, 3:] = half
            model.geom_rbound[geom] = half * 3**0.5
        for name, half, ratio in zip(self.bodies, halves, ratios, strict=True):
            body = find(model, "body", name)
            model.bvh_aabb[model.body_bvhadr[body], 3:] = half
            model.body_mass[body] *= ratio**3
            model.body_inertia[body] *= ratio**5


@dataclass(frozen=True)
class Aim(Effect):
    """Degrees (n, 2) by which cameras are turned in place: about the vertical, then about their own x axis."""

    cameras: tuple[str, ...]

    def slots(self, model: Any) -> list[Slot]:
        return [("cam_quat", rows(model, "cam_quat", self.cameras))]

    def default(self, model: Any) -> Any:
        return np.zeros((len(self.cameras), 2))

    def write(self, model: Any, value: Any, default: Any) -> None:
        import mujoco

        for name, (yaw, pitch) in zip(self.cameras, np.deg2rad(value), strict=True):
            quat = model.cam_quat[find(model, "cam", name)]
            turned = np.empty(4)
            mujoco.mju_mulQuat(turned, np.array([np.cos(yaw / 2), 0, 0, np.sin(yaw / 2)]), quat)
            mujoco.mju_mulQuat(quat, turned, np.array([np.cos(pitch / 2), np.sin(pitch / 2), 0, 0]))


@dataclass(frozen=True)
class Told(Effect):
    """Nothing in the model: the env reads the value where its task places or colours things."""

    at: Any = 0.0

    def slots(self, model: Any) -> list[Slot]:
        return []

    def default(self, model: Any) -> Any:
        return self.at

    def write(self, model: Any, value: Any, default: Any) -> None:
        """Leave the model as it is."""


@dataclass(frozen=True)
class Gradient(Checker):
    """1: a texture over the whole floor says where one is: red and green from 0 to 192, blue 128; 0: as compiled."""

    material: str = "grid"

    def slots(self, model: Any) -> list[Slot]:
        return [*super().slots(model), ("mat_texuniform", [find(model, "mat", self.material)])]

    def default(self, model: Any) -> Any:
        return 0

    def write(self, model: Any, value: Any, default: Any) -> None:
        number = find(model, "tex", self.texture)
        height, width = int(model.tex_height[number]), int(model.tex_width[number])
        pixels = self._pixels(model).reshape(height, width, 3)
        pixels[..., 0] = (np.arange(height) / height * 192).astype(np.uint8)[:, None]
        pixels[..., 1] = (np.arange(width) / width * 192).astype(np.uint8)
        pixels[..., 2] = 128
        model.mat_texuniform[find(model, "mat", self.material)] = 0


@dataclass(frozen=True)
class Faded(Effect):
    """1: geoms of these materials are nearly transparent; 0: as compiled."""

    materials: tuple[str, ...]
    alpha: ClassVar[float] = 0.3

    def slots(self, model: Any) -> list[Slot]:
        return [("geom_rgba", self._geoms(model))]

    def default(self, model: Any) -> Any:
        return 0

    def write(self, model: Any, value: Any, default: Any) -> None:
        geoms = self._geoms(model)
        model.geom_rgba[geoms] = model.mat_rgba[model.geom_matid[geoms]]
        model.geom_rgba[geoms, 3] = self.alpha

    def _geoms(self, model: Any) -> np.ndarray:
        materials = [find(model, "mat", name) for name in self.materials]
        return np.flatnonzero(np.isin(model.geom_matid, materials))


@dataclass(frozen=True)
class Backdrop(Effect):
    """Colour of the floor's material and of the sky, whose texture becomes plain."""

    material: str

    def slots(self, model: Any) -> list[Slot]:
        return [("tex_data", self._part(model)), ("mat_rgba", rows(model, "mat_rgba", self.material))]

    def default(self, model: Any) -> Any:
        return np.round(model.mat_rgba[find(model, "mat", self.material), :3].astype(np.float64), 6)

    def write(self, model: Any, value: Any, default: Any) -> None:
        color = np.asarray(value)
        model.tex_data[self._part(model)].reshape(-1, 3)[:] = np.rint(color * 255.0).astype(np.uint8)
        model.mat_rgba[find(model, "mat", self.material), :3] = color

    def textures(self, model: Any) -> set[int]:
        return {self._sky(model)}

    @staticmethod
    def _sky(model: Any) -> int:
        return int(np.flatnonzero(model.tex_type == 2)[0])  # mjTEXTURE_SKYBOX

    def _part(self, model: Any) -> slice:
        sky = self._sky(model)
        size = model.tex_height[sky] * model.tex_width[sky] * model.tex_nchannel[sky]
        return slice(int(model.tex_adr[sky]), int(model.tex_adr[sky] + size))
