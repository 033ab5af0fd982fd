"""Pictures of MuJoCo models: levels of detail, sharing of GL resources, and an end without a word."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from envs.dmcontrol_names import NAMES

import stable_worldmodel.envs  # noqa: F401  (registers the ids)
from stable_worldmodel.errors import ContractError

mujoco = pytest.importorskip("mujoco")
suite = pytest.importorskip("dm_control.suite")

from stable_worldmodel.envs.mujoco import QUALITIES, backend, gl, renderer  # noqa: E402


def make(name: str, size: int = 64, **kwargs: Any) -> Any:
    env = gym.make(f"swm/{name}DMControl-v0", render_mode="rgb_array", disable_env_checker=True, **kwargs).unwrapped
    env.render_shape = (size, size)
    return env


def pictures(name: str, quality: str, size: int, count: int = 3) -> np.ndarray:
    env = make(name, size, quality=quality)
    env.reset(seed=1)
    env.action_space.seed(1)
    found = []
    for _ in range(count):
        found.append(env.render())
        for _ in range(5):
            env.step(env.action_space.sample())
    env.close()
    return np.array(found, int)


@pytest.mark.parametrize("size", [64, pytest.param(224, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", NAMES)
def test_matched_is_close_to_full(name: str, size: int) -> None:
    difference = np.abs(pictures(name, "matched", size) - pictures(name, "full", size))
    assert difference.mean(axis=(1, 2, 3)).max() <= 2


@pytest.mark.parametrize("name", ["Reacher", "Humanoid"])
def test_levels_differ(name: str) -> None:
    full, matched, fast = (pictures(name, quality, 64, count=1) for quality in QUALITIES)
    assert np.abs(fast - full).mean() > np.abs(matched - full).mean() > 0


@pytest.mark.parametrize("name", ["Cheetah", "Reacher"])
def test_full_is_the_suites_own_picture(name: str) -> None:
    code = f"""
import numpy as np, gymnasium as gym, stable_worldmodel.envs
env = gym.make("swm/{name}DMControl-v0", render_mode="rgb_array", disable_env_checker=True, quality="full").unwrapped
env.reset(seed=1)
ours = env.render(width=96, height=72)
theirs = env.dmc_env.physics.render(72, 96, camera_id=0)
assert ours.shape == theirs.shape
print(np.abs(ours.astype(int) - theirs).mean())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 0.05
    assert done.stderr == ""


def test_level_is_checked_and_recorded() -> None:
    with pytest.raises(ContractError, match="full, matched, fast"):
        make("Reacher", quality="best")
    assert make("Reacher", quality="fast").reset(seed=0)[1]["render_quality"] == "fast"


def test_cameras_and_sizes() -> None:
    env = make("Cheetah")
    env.reset(seed=0)
    assert env.render(width=20, height=10).shape == (10, 20, 3)
    assert not np.array_equal(env.render(camera_id="back"), env.render(camera_id="side"))
    np.testing.assert_array_equal(env.render(camera_id=0), env.render(camera_id="side"))
    with pytest.raises(ContractError, match="side, back"):
        env.render(camera_id="top")
    with pytest.raises(ContractError, match="camera"):
        env.render(camera_id=7)
    buffer = np.zeros((2, 40, 30, 3), np.uint8)
    assert env.render(out=buffer[1]) is not None
    np.testing.assert_array_equal(buffer[1], env.render(width=30, height=40))
    assert not buffer[0].any()
    with pytest.raises(ContractError, match="out"):
        env.render(out=np.zeros((40, 30, 3), np.float32))


def test_envs_of_one_look_share_gl_resources_but_not_what_they_repaint() -> None:
    gc.collect()
    before = len(renderer._shared)
    plain, red = make("Cheetah", 40), make("Cheetah", 40)
    plain.reset(seed=0)
    red.reset(seed=0, options={"variation_values": {"floor.color": [[1, 0, 0], [0.8, 0, 0]]}})
    first, second = red.render(), plain.render()  # the one that is repainted draws first
    assert len(renderer._shared) == before + 1
    lone = make("Cheetah", 40)
    lone.reset(seed=0)
    np.testing.assert_array_equal(lone.render(), second)
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(red.render(), first)
    np.testing.assert_array_equal(plain.render(), second)
    red.reset(seed=0)
    np.testing.assert_array_equal(red.render(), second)
    for env in (plain, red, lone):
        env.close()
    assert len(renderer._shared) == before
    np.testing.assert_array_equal(plain.render(), second)  # closing gives back, drawing takes again
    plain.close()


def test_floor_pixels_have_the_colours_of_the_factor() -> None:
    env = make("Pendulum", 64, quality="fast")
    for seed, channel in ((0, 0), (0, 2)):
        color = np.eye(3)[channel]
        env.reset(seed=seed, options={"variation_values": {"floor.color": [color, color]}})
        assert env.render()[-8:].reshape(-1, 3).mean(axis=0).argmax() == channel


def test_gl_resources_of_a_forgotten_env_are_freed() -> None:
    gc.collect()
    before = len(renderer._shared)
    env = make("Walker", 33)
    env.reset(seed=0)
    env.render()
    assert len(renderer._shared) == before + 1
    del env
    gc.collect()
    assert len(renderer._shared) == before


def test_backend_is_reported() -> None:
    found = backend()
    assert found.name in gl.BACKENDS
    assert found.renderer
    assert found.version
    assert found.software == ("llvmpipe" in found.renderer.lower() or "softpipe" in found.renderer.lower())


DRAW = """
import gymnasium as gym, stable_worldmodel.envs
from stable_worldmodel.envs.mujoco import backend
env = gym.make("swm/ReacherDMControl-v0", render_mode="rgb_array", disable_env_checker=True)
env.reset(seed=0)
frame = env.render()
print(backend().name, frame.mean() > 10)
"""


def draw(code: str = DRAW, **variables: str) -> subprocess.CompletedProcess:
    environment = {key: value for key, value in os.environ.items() if key not in ("MUJOCO_GL", "PYOPENGL_PLATFORM")}
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**environment, **variables},
    )


@pytest.mark.parametrize("name", ["", "egl", "osmesa"])
def test_process_ends_without_a_word(name: str) -> None:
    if name == "osmesa" and not gl._has_osmesa():
        pytest.skip("libOSMesa is not installed")
    done = draw(**({"MUJOCO_GL": name} if name else {}))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split()[1] == "True"
    assert done.stdout.split()[0] == name or not name


def test_without_gl_everything_but_pictures_works() -> None:
    code = """
import gymnasium as gym, stable_worldmodel.envs
env = gym.make("swm/ReacherDMControl-v0", render_mode="rgb_array", disable_env_checker=True)
env.reset(seed=0)
env.step(env.action_space.sample())
try:
    env.render()
except RuntimeError as error:
    print(error)
"""
    done = draw(code, MUJOCO_GL="off")
    assert (done.returncode, done.stderr) == (0, "")
    assert "MUJOCO_GL" in done.stdout
    assert "libegl1" in done.stdout


def test_a_forked_process_is_told_why_it_cannot_draw() -> None:
    code = (
        DRAW
        + """
import os, sys
sys.stdout.flush()
child = os.fork()
if child == 0:
    try:
        env.render()
    except RuntimeError as error:
        print(error, flush=True)
    os._exit(0)
os.waitpid(child, 0)
"""
    )
    done = draw(code)
    assert "spawn" in done.stdout
    assert done.stderr == ""


def test_another_thread_is_refused() -> None:
    import threading

    env = make("Reacher")
    env.reset(seed=0)
    env.render()
    errors: list[BaseException] = []

    def render() -> None:
        try:
            env.render()
        except RuntimeError as error:
            errors.append(error)

    thread = threading.Thread(target=render)
    thread.start()
    thread.join()
    assert "thread" in str(errors[0])


_ORDER = """
import gymnasium as gym
import stable_worldmodel.envs

def picture(id):
    env = gym.make(id, render_mode="rgb_array", disable_env_checker=True).unwrapped
    env.render_shape = (32, 32)
    env.reset(seed=0, options={"variation": []})
    return env.render().tobytes()

ids = ["swm/OGBCube-v0", "swm/OGBMaze-v0", "swm/ReacherDMControl-v0"]
first = [picture(id) for id in ids]
assert [picture(id) for id in ids] == first
assert [picture(id) for id in reversed(ids)] == first[::-1]
"""


@pytest.mark.slow
def test_what_was_drawn_before_leaves_no_light_behind() -> None:
    pytest.importorskip("ogbench")
    subprocess.run([sys.executable, "-c", _ORDER], check=True, timeout=300)
