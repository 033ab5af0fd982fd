"""ImagePositioning: the contract of all envs, and the rules of the task."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from envs.contract import RestorableContract
from envs.lifted import LiftedObservations
from PIL import Image

from stable_worldmodel.envs.image_positioning import ImagePositioning, generated_images, noise
from stable_worldmodel.errors import ContractError

N = 3


class TestImagePositioning(LiftedObservations, RestorableContract):
    id = "swm/ImagePositioning-v1"


class TestSmallImagePositioning(LiftedObservations, RestorableContract):
    id = "swm/ImagePositioning-v1"
    kwargs = {"resolution": 48}  # noqa: RUF012
    native_size = (48, 48)


def make(**kwargs: Any) -> ImagePositioning:
    return ImagePositioning(**{"resolution": 64, "render_mode": "rgb_array", **kwargs})


def state(background=(0.0, 0.0), locations=((0.0, 0.0),) * N, rotations=(0.0,) * N) -> np.ndarray:
    return np.concatenate([np.ravel(part) for part in (background, locations, rotations)])


def reset_to(env: ImagePositioning, start: np.ndarray, target: np.ndarray, **options: Any):
    return env.reset(seed=0, options={"variation": [], "state": start, "target_state": target, **options})


# ---------------------------------------------------------------------- task
def test_actions_are_added_and_clipped() -> None:
    env = make()
    reset_to(env, state((0.85, 0.05), [(0.5, 0.0)] * N, [0.95] * N), state())
    action = {
        "delta_background": np.array([[0.1], [-0.1]]),
        "delta_locations": np.full((N, 2), -0.1),
        "delta_rotations": np.full((N, 1), 0.1),
    }
    kept = {key: value.copy() for key, value in action.items()}
    observation, _, _, _, info = env.step(action)
    assert observation["current_background"].ravel().tolist() == [0.9, 0.0]
    np.testing.assert_allclose(observation["current_locations"], [(0.4, 0.0)] * N)
    np.testing.assert_allclose(observation["current_rotations"], [[0.05]] * N)
    np.testing.assert_array_equal(info["state"][:2], [0.9, 0.0])
    for key, value in kept.items():  # the caller's action stays as it was
        np.testing.assert_array_equal(action[key], value)


def test_distances_are_sums_and_rotations_go_round() -> None:
    _, info = reset_to(
        make(), state((0.1, 0.2), [(0.1, 0.1)] * N, [0.95] * N), state((0.2, 0.4), [(0.2, 0.3)] * N, [0.05] * N)
    )
    assert info["background_distance"] == pytest.approx(0.3)
    assert info["location_distance"] == pytest.approx(0.3 * N)
    assert info["rotation_distance"] == pytest.approx(0.1 * N)
    assert info["is_success"] is False


def test_optimal_action_solves_the_task() -> None:
    env = make()
    for seed in range(10):
        env.reset(seed=seed)
        _, reward, terminated, truncated, info = env.step(env._get_optimal_action())
        assert (reward, terminated, truncated, info["is_success"]) == (1.0, True, False, True)


def test_every_part_must_match() -> None:
    target = state((0.5, 0.5), [(0.5, 0.5)] * N, [0.5] * N)
    for i in range(len(target)):
        start = target.copy()
        start[i] += 0.011
        assert reset_to(make(), start, target)[1]["is_success"] is False
        start[i] -= 0.002
        assert reset_to(make(), start, target)[1]["is_success"] is True


def test_steps_within_the_action_space_reach_every_target() -> None:
    env = make()
    for seed in range(10):
        env.reset(seed=seed)
        for _ in range(10):
            best = env._get_optimal_action()
            *_, info = env.step({name: np.clip(delta, -0.1, 0.1) for name, delta in best.items()})
        assert info["is_success"]


@pytest.mark.parametrize(
    "action",
    [
        np.zeros(3),
        {"delta_background": np.zeros((2, 1))},
        {"delta_background": np.zeros(2), "delta_locations": np.zeros((N, 2)), "delta_rotations": np.zeros((N, 1))},
    ],
)
def test_bad_actions_are_refused(action) -> None:
    env = make()
    env.reset(seed=0)
    with pytest.raises(ContractError, match="action"):
        env.step(action)


@pytest.mark.parametrize("bad", [np.zeros(4), state((0.95, 0.0)), state(rotations=[1.5] * N), state() * np.nan])
def test_impossible_states_are_refused(bad) -> None:
    with pytest.raises(ContractError, match="state"):
        reset_to(make(), bad, state())


@pytest.mark.parametrize("kwargs", [{"images": []}, {"resolution": 0}, {"render_mode": "human"}])
def test_constructor_refuses(kwargs) -> None:
    with pytest.raises(ContractError):
        make(**kwargs)


def test_step_needs_a_reset() -> None:
    with pytest.raises(gym.error.ResetNeeded):
        make()._get_optimal_action()


# ---------------------------------------------------------------------- picture
def picture_with(image: Image.Image, start: np.ndarray, **values: Any) -> np.ndarray:
    env = make(images=[image])
    reset_to(env, start, start, variation_values=values)
    return env.render()


BLUE = Image.new("RGB", (10, 10), (0, 0, 255))


def test_image_is_pasted_with_its_border_at_its_location() -> None:
    picture = picture_with(BLUE, state((0, 0), [(0.25, 0.5)], [0.0]))
    np.testing.assert_array_equal(picture[37:47, 21:31], np.full((10, 10, 3), (0, 0, 255)))
    assert {tuple(p) for p in picture[32, 16:36]} == {(31, 119, 180)}  # the border, 5 px
    assert (picture[31] == picture[31, :, :1]).all()  # grey beside it


def test_rotation_keeps_the_place_and_lets_the_background_through() -> None:
    turned = picture_with(BLUE, state((0, 0), [(0.25, 0.5)], [0.125]))
    assert turned[42, 26].tolist() == [0, 0, 255]
    corner = turned[32, 16]
    assert corner[0] == corner[1] == corner[2]


def test_background_scrolls() -> None:
    still = picture_with(BLUE, state((0, 0), [(0.9, 0.9)], [0.0]))
    scrolled = picture_with(BLUE, state((0.25, 0.125), [(0.9, 0.9)], [0.0]))
    np.testing.assert_array_equal(scrolled[:40, :40], still[16:56, 8:48])


def test_target_can_be_drawn() -> None:
    env = make()
    _, info = env.reset(seed=0)
    np.testing.assert_array_equal(env.render("target"), info["goal"])
    env._set_state(info["goal_state"])
    np.testing.assert_array_equal(env.render(), info["goal"])
    with pytest.raises(ContractError, match="mode"):
        env.render("human")


def test_noise_falls_with_frequency() -> None:
    def roughness(decay: float) -> float:
        picture = noise(64, decay, np.random.default_rng(0)).astype(float)
        return np.abs(np.diff(picture, axis=0)).mean()

    assert roughness(0.0) > 1.5 * roughness(1.0) > 3 * roughness(2.0)
    picture = noise(64, 1.0, np.random.default_rng(0))
    assert (picture.min(), picture.max()) == (0, 255)


def test_generated_images_have_no_symmetry_of_rotation_by_half_a_turn() -> None:
    for image in generated_images(32):
        assert not np.array_equal(np.asarray(image), np.asarray(image.rotate(180)))


def test_small_picture_is_the_large_one_averaged() -> None:
    large, small = make(), make()
    small.render_shape = (32, 32)
    large.reset(seed=1)
    small.reset(seed=1)
    mean = large.render().reshape(32, 2, 32, 2, 3).mean(axis=(1, 3))
    assert np.abs(small.render() - mean).max() <= 1
