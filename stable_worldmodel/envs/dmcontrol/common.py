"""Rows that the tables of several domains have in common."""

from __future__ import annotations

from stable_worldmodel.envs.mujoco.effects import (
    RGB,
    Checker,
    Density,
    Locked,
    Outline,
    Paint,
    Put,
    Scale,
    SharedDensity,
    Shown,
)
from stable_worldmodel.envs.mujoco.factors import Factor, color, number, switch

_FLOOR = [[0.1, 0.2, 0.3], [0.2, 0.3, 0.4]]

AGENT = color("agent.color", Put("mat_rgba", "self", RGB), "of what moves")
FLOOR = color("floor.color", Checker("grid"), "of the two kinds of fields", _FLOOR, (2, 3))
LIGHT = number("light.intensity", 0, 1, Scale(("light_diffuse",)), "diffuse part of all lights", dtype=float)
LOOKS = (AGENT, FLOOR, LIGHT)
GRAVITY = tuple(
    number(f"gravity.{axis}", low, high, Put("opt.gravity", None, i), "m/s²", dtype=float)
    for i, (axis, low, high) in enumerate([("x", -5, 5), ("y", -5, 5), ("z", -20, 0)])
)


def friction(floor: str) -> Factor:
    """Sliding friction of the floor."""
    about = "sliding coefficient of the floor; that of all shapes in proportion"
    return number("floor.friction", 0, 1, Scale(("geom_friction",), None, 0, of=floor), about)


def density(name: str, *bodies: str, default: float = 1000.0, shared: bool = False, group: str = "agent") -> Factor:
    """Density of the named bodies (default: the one called `name`); `default` is what the stock model has.

    `shared`: the model's total mass is fixed.
    """
    effect = SharedDensity if shared else Density
    about = "kg/m³; mass and inertia of the body follow" + (", those of the whole are fixed" if shared else "")
    label = f"{group}.{name}_density" if name else f"{group}.density"
    return number(label, 500, 1500, effect(names=bodies or (name,)), about, default)


def locked(name: str, joint: str | None = None) -> Factor:
    """Whether a joint can move."""
    return switch(f"agent.{name}_locked", Locked(joint or name), "0: the joint is locked; 1: it moves")


def target(kind: str, name: str, shown: int | None = None, stock: int | None = None) -> tuple[Factor, ...]:
    """Looks of a target, a geom or a site. `shown`: whether it is drawn; `stock`: whether the suite draws it."""
    return (
        color("target.color", Paint(kind, (name,)), "of the target"),
        switch("target.shape", Outline(kind, name), "0: box, 1: sphere"),
        switch("rendering.render_target", Shown(kind, name), "whether the target is drawn", shown, stock),
    )
