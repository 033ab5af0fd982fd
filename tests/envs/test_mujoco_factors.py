"""The factor engine: it writes what a compiler would have, and nothing at default."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from envs.dmcontrol_names import NAMES
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

import stable_worldmodel.envs  # noqa: F401  (registers the ids)
from stable_worldmodel.errors import ContractError

mujoco = pytest.importorskip("mujoco")
suite = pytest.importorskip("dm_control.suite")

from stable_worldmodel.envs.mujoco import (  # noqa: E402
    Factor,
    FactorEngine,
    Simulation,
    color,
    effects,
    number,
    scene_effects,
    switch,
)
from stable_worldmodel.envs.mujoco.renderer import digest_of  # noqa: E402

SCENE = """
<mujoco>
  <asset>
    <texture name="grid" type="2d" builtin="checker" rgb1=".1 .2 .3" rgb2=".2 .3 .4" width="64" height="64"/>
    <material name="grid" texture="grid"/>
    <texture name="sky" type="skybox" builtin="flat" rgb1=".3 .4 .5" rgb2=".3 .4 .5" width="32" height="32"/>
    <material name="self" rgba=".7 .5 .3 1"/>
  </asset>
  <worldbody>
    <light pos="0 0 3"/>
    <camera name="front" pos="0 -2 1" xyaxes="1 0 0 0 .4 1"/>
    <geom name="floor" type="plane" size="3 3 .1" material="grid" pos="1 0 0"/>
    <body name="arm" pos="0 0 .6">
      <joint name="hinge" axis="0 1 0"/>
      <geom name="arm" type="capsule" fromto="0 0 0 .4 0 0" size=".03" material="self"/>
      <body name="hand" pos=".4 0 0">
        <joint name="wrist" axis="0 1 0"/>
        <geom name="hand" type="capsule" fromto="0 0 0 .2 0 0" size=".03" material="self"/>
      </body>
    </body>
    <body name="ball" pos="-.5 0 .5">
      <freejoint/>
      <geom name="ball" type="sphere" size=".1"/>
    </body>
    <body name="cube" pos="0 -.5 .3" euler="10 20 30">
      <freejoint/>
      <geom name="cube" type="box" size=".05 .05 .05"/>
    </body>
    <site name="target" type="sphere" size=".05" pos="0 0 1" rgba="1 0 0 1"/>
  </worldbody>
</mujoco>
"""


def compiled(change: Any = None) -> Any:
    spec = mujoco.MjSpec.from_string(SCENE)
    if change is not None:
        change(spec)
    return spec.compile()


def run(model: Any, steps: int = 300) -> np.ndarray:
    data = mujoco.MjData(model)
    data.qvel[0] = 1.0
    rows = []
    for _ in range(steps):
        mujoco.mj_step(model, data)
        rows.append(data.qpos.copy())
    return np.array(rows)


def heavier(spec: Any) -> None:
    spec.geom("hand").density = 1500


def larger(spec: Any) -> None:
    spec.geom("ball").size = [0.15, 0, 0]


def wider(spec: Any) -> None:
    spec.geom("cube").size = [0.08] * 3


def tilted(spec: Any) -> None:
    angle = np.deg2rad(8)
    spec.geom("floor").quat = [np.cos(angle / 2), 0, np.sin(angle / 2), 0]
    spec.geom("floor").pos = [np.cos(angle), 0, -np.sin(angle)]


def slippery(spec: Any) -> None:
    for geom in spec.geoms:
        geom.friction = [0.2, *geom.friction[1:]]


def stiff(spec: Any) -> None:
    spec.joint("wrist").armature = effects.Locked.inertia


@pytest.mark.parametrize(
    ("factor", "value", "change"),
    [
        (number("a.density", 500, 1500, effects.Density(names=("hand",)), default=1000.0), 1500.0, heavier),
        (number("a.size", 0.01, 0.5, effects.BallRadius("ball", "ball")), 0.15, larger),
        (number("a.half", 0.01, 0.1, scene_effects.BoxSize(("cube",), ("cube",)), dtype=float), 0.08, wider),
        (number("a.slope", -10, 10, effects.Slope("floor")), 8.0, tilted),
        (number("a.friction", 0, 1, effects.Scale(("geom_friction",), None, 0, of="floor")), 0.2, slippery),
        (switch("a.locked", effects.Locked("wrist")), 0, stiff),
        (
            number("a.gravity", -20, 0, effects.Put("opt.gravity", None, 2), dtype=float),
            -3.0,
            lambda spec: setattr(spec.option, "gravity", [0, 0, -3]),
        ),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_physics_is_that_of_a_model_compiled_with_the_value(factor: Factor, value: Any, change: Any) -> None:
    model = compiled()
    engine = FactorEngine([factor], model)
    engine.space.set_value({factor.name: value})
    engine.restore(model, mujoco.MjData(model))
    engine.finish(model)
    expected = compiled(change)
    tolerance = {"rtol": 1e-6, "atol": 1e-6}  # values are float32
    np.testing.assert_allclose(run(model), run(expected), **tolerance)
    np.testing.assert_allclose(model.dof_M0, expected.dof_M0, rtol=1e-6)
    np.testing.assert_allclose(model.body_invweight0, expected.body_invweight0, rtol=1e-6)
    assert not np.allclose(run(model), run(compiled()), **tolerance)


def faded(spec: Any) -> None:
    spec.material("self").rgba = [0.7, 0.5, 0.3, scene_effects.Faded.alpha]


def turned(spec: Any) -> None:
    camera = spec.camera("front")
    x, y = np.array([1.0, 0, 0]), np.array([0.0, 0.4, 1])
    axes = np.stack([x, y / np.linalg.norm(y), np.cross(x, y / np.linalg.norm(y))], axis=1)
    turn = Rotation.from_euler("z", 7, degrees=True) * Rotation.from_matrix(axes)
    turn = turn * Rotation.from_euler("x", -4, degrees=True)
    camera.alt.type = mujoco.mjtOrientation.mjORIENTATION_QUAT
    camera.quat = turn.as_quat(scalar_first=True)


def pink(spec: Any) -> None:
    spec.material("grid").rgba = [0.8, 0.4, 0.6, 1]
    spec.texture("sky").rgb1 = spec.texture("sky").rgb2 = [0.8, 0.4, 0.6]


@pytest.mark.parametrize(
    ("factor", "value", "change"),
    [
        (switch("a.faded", scene_effects.Faded(("self",))), 1, faded),
        (Factor("a.turned", scene_effects.Aim(("front",)), -10.0, 10.0, (1, 2)), [[7.0, -4.0]], turned),
        (color("a.backdrop", scene_effects.Backdrop("grid")), [0.8, 0.4, 0.6], pink),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_pictures_are_those_of_a_model_compiled_with_the_value(factor: Factor, value: Any, change: Any) -> None:
    plain, expected = (picture(compiled(each), []) for each in (None, change))
    found = picture(compiled(), [factor], {factor.name: value})
    assert np.abs(found - expected).max() <= 1
    assert np.abs(plain - expected).max() > 50
    np.testing.assert_array_equal(picture(compiled(), [factor]), plain)


def picture(model: Any, table: list[Factor], values: dict[str, Any] | None = None) -> np.ndarray:
    data = mujoco.MjData(model)
    simulation = Simulation(model, data, table, "fast")
    simulation.factors.space.set_value(values or {})
    simulation.restore()
    mujoco.mj_forward(model, data)
    found = simulation.picture((96, 96), "front").astype(int)
    simulation.close()
    return found


def test_a_gradient_says_where_one_is() -> None:
    model = compiled()
    engine = FactorEngine([switch("floor.gradient", scene_effects.Gradient("grid"))], model)
    engine.space.set_value({"floor.gradient": 1})
    engine.restore(model, None)
    image = model.tex_data[: 64 * 64 * 3].reshape(64, 64, 3)
    assert len({tuple(pixel) for pixel in image.reshape(-1, 3).tolist()}) == 64 * 64
    np.testing.assert_array_equal(image[48, 16], [144, 48, 128])


def test_shared_density_keeps_the_total_mass() -> None:
    model = compiled()
    masses = model.body_mass.copy()
    engine = FactorEngine([number("a.d", 500, 1500, effects.SharedDensity(names=("hand",)), default=1000.0)], model)
    engine.space.set_value({"a.d": 1500.0})
    engine.restore(model, mujoco.MjData(model))
    assert model.body_mass.sum() == pytest.approx(masses.sum())
    hand, arm = effects.find(model, "body", "hand"), effects.find(model, "body", "arm")
    assert model.body_mass[hand] / model.body_mass[arm] == pytest.approx(1.5 * masses[hand] / masses[arm])


@pytest.mark.parametrize("name", NAMES)
def test_defaults_put_the_compiled_model_back_to_the_last_byte(name: str) -> None:
    env = gym.make(f"swm/{name}DMControl-v0", disable_env_checker=True).unwrapped
    model = env.dmc_env.physics.model.ptr
    env.reset(seed=0, options={"variation": []})
    plain = digest_of(model)  # with what the task placed
    for seed in (1, 2):
        env.reset(seed=seed, options={"variation": ["all"]})
        assert digest_of(model) != plain
    env.reset(seed=0, options={"variation": []})
    assert digest_of(model) == plain


@pytest.mark.parametrize("name", NAMES)
def test_default_factors_say_what_the_model_is(name: str) -> None:
    env = gym.make(f"swm/{name}DMControl-v0", disable_env_checker=True).unwrapped
    model = env.dmc_env.physics.model.ptr
    for factor in env.table(env.task):
        if factor.default is not None and not factor.name.endswith("density") and factor.neutral is None:
            found = factor.effect.default(model)
            if name != "Finger":  # whose target a task hides
                np.testing.assert_allclose(found, factor.default, atol=1 / 255)


@given(seed=st.integers(0, 2**31), other=st.integers(0, 2**31))
@settings(max_examples=20, deadline=None)
def test_the_model_depends_on_the_values_only(seed: int, other: int) -> None:
    table = [
        number("a.density", 500, 1500, effects.Density(names=("hand",)), default=1000.0),
        number("a.slope", -10, 10, effects.Slope("floor")),
        switch("b.locked", effects.Locked("wrist")),
        Factor("b.floor", effects.Checker("grid"), 0.0, 1.0, (2, 3)),
        switch("b.form", effects.Outline("site", "target")),
        switch("b.shown", effects.Shown("site", "target")),
        Factor("b.color", effects.Paint("site", ("target",)), 0.0, 1.0, (3,)),
    ]
    digests = []
    for history in ([seed], [other, seed]):
        model = compiled()
        engine, scratch = FactorEngine(table, model), mujoco.MjData(model)
        for each in history:
            engine.space.draw_factors(each, {"variation": ["all"]}, ())
            engine.restore(model, scratch)
            engine.finish(model)
        digests.append(digest_of(model))
    assert digests[0] == digests[1]


def test_floor_colours_are_those_of_the_texture() -> None:
    model = compiled()
    engine = FactorEngine([Factor("floor.color", effects.Checker("grid"), 0.0, 1.0, (2, 3))], model)
    stock = floor(model).copy()
    engine.space.set_value({"floor.color": [[1, 0, 0], [0, 0, 1]]})
    engine.restore(model, None)
    first = (stock == stock[0]).all(axis=1)
    found = floor(model)
    assert {tuple(c) for c in found[first].tolist()} | {tuple(c) for c in found[~first].tolist()} == {
        (255, 0, 0),
        (0, 0, 255),
    }
    assert engine.own_textures == engine.changed_textures == {0}
    engine.restore(model, None)
    assert (engine.own_textures, engine.changed_textures) == ({0}, set())
    engine.space.reset()
    engine.restore(model, None)
    assert engine.own_textures == set()
    np.testing.assert_array_equal(floor(model), stock)


def floor(model: Any) -> np.ndarray:
    """Pixels of the first texture."""
    return model.tex_data[: model.tex_height[0] * model.tex_width[0] * 3].reshape(-1, 3)


def test_default_of_an_env_may_be_another() -> None:
    env = gym.make("swm/CartpoleDMControl-v0", disable_env_checker=True, init_value={"gravity.z": -5.0}).unwrapped
    env.reset(seed=0)
    assert env.dmc_env.physics.model.opt.gravity[2] == -5.0


def test_factors_are_documented() -> None:
    env = gym.make("swm/WalkerDMControl-v0", disable_env_checker=True).unwrapped
    rows = {row["factor"]: row for row in env._simulation.factors.document()}
    assert rows.keys() == set(env.variation_space.names())
    assert rows["floor.friction"]["default"] == pytest.approx([0.7])
    assert all(row["about"] for row in rows.values())


@pytest.mark.parametrize("name", NAMES)
def test_the_page_names_every_factor_and_task(name: str) -> None:
    env = gym.make(f"swm/{name}DMControl-v0", disable_env_checker=True).unwrapped
    page = (Path(__file__).parents[2] / "docs" / "environments" / "dmcontrol.md").read_text()
    lines = "".join(line for line in page.splitlines() if line.startswith(f"| `{name}` |"))
    common = {"agent.color", "floor.color", "light.intensity", "gravity.x", "gravity.y", "gravity.z"}
    missing = [factor for factor in env.variation_space.names() if factor not in common and f"`{factor}`" not in lines]
    missing += [task for task in env.tasks if task not in lines]
    assert not missing


def test_mistakes_in_tables_are_named() -> None:
    model = compiled()
    with pytest.raises(ContractError, match="no body 'foot'"):
        FactorEngine([number("a.b", 0, 1, effects.Density(names=("foot",)), default=1.0)], model)
    with pytest.raises(ContractError, match=r"'group\.name'"):
        FactorEngine([number("gravity", -1, 1, effects.Put("opt.gravity", None, 0))], model)
