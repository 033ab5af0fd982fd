"""`swm/ImagePositioning-v1`: move, turn and scroll pasted images until they match a target arrangement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from PIL import Image, ImageDraw, ImageOps
from scipy import fft

from stable_worldmodel import spaces
from stable_worldmodel.envs.env2d import Env2D, column
from stable_worldmodel.envs.variation import FactorSpace, recorded_factors
from stable_worldmodel.errors import ContractError

DEFAULT_VARIATIONS = ("background.noise_seed",)
MAX_STEP = 0.1
MAX_POSITION = 0.9  # of the images and of the visible part of the background
TOLERANCE = 0.01
_BORDER = 5  # px
_BORDER_COLORS = (
    (31, 119, 180),
    (255, 127, 14),
    (44, 160, 44),
    (214, 39, 40),
    (148, 103, 189),
    (140, 86, 75),
    (227, 119, 194),
    (127, 127, 127),
    (188, 189, 34),
    (23, 190, 207),
)
_PARTS = ("background", "locations", "rotations")


class Arrangement(NamedTuple):
    """Where everything is, in float64."""

    background: np.ndarray  # (2, 1) row and column of the visible window, as shares of its side
    locations: np.ndarray  # (n, 2) x and y of the images' corners, as shares of the picture's side
    rotations: np.ndarray  # (n, 1) turns, anticlockwise

    def flat(self) -> np.ndarray:
        """All numbers in one array, (2 + 3n,)."""
        return np.concatenate([part.ravel() for part in self])


class Factors(FactorSpace):
    """The variation space, drawn in this order."""

    def __init__(self, count: int, decay: float):
        colors = [_BORDER_COLORS[i % len(_BORDER_COLORS)] for i in range(count)]
        super().__init__(
            {
                "background": {
                    "power_decay": spaces.Box(0.0, 3.0, (), np.float32, init_value=decay),
                    "noise_seed": spaces.Discrete(2**31 - 1, init_value=0),
                },
                "images": {
                    "border_color": spaces.RGBBox((count, 3), init_value=colors),
                    "size": spaces.Box(0.5, 1.5, (count,), np.float32, init_value=1.0),  # times the image's own
                },
            }
        )


class ImagePositioning(Env2D):
    """Images on a scrolling background of noise, and where they should be.

    Observation: `current_background` (2, 1), `current_locations` (n, 2), `current_rotations` (n, 1), and `target_...`
    of the same shapes, float64. Action: `delta_background`, `delta_locations`, `delta_rotations` of the same shapes,
    in [-0.1, 0.1], which are added. Background and locations are clipped to 0..0.9, rotations are taken modulo 1. The
    reward is 1, and the episode terminates, when the L1 distances of all three parts are below 0.01; else 0.

    Info: `env_name`; `state`, `proprio`, `goal_state`, float64 (2 + 3n,): background, locations, rotations;
    `background_distance`, `location_distance`, `rotation_distance`; `is_success`; `goal`, a picture of the target.

    Reset options: `variation`, `variation_values`; `state` and `target_state`, (2 + 3n,) as in info.

    The picture is composed at `resolution`, the scale of the images; another `render_shape` is that picture resampled.

    Args:
        resolution: side of the picture in px, in which the images are measured.
        images: what to paste; None: three generated ones.
        render_mode: "rgb_array", or None for an env that is never rendered.
        background_power_decay: default of the factor `background.power_decay`; 0 is white noise, 1 pink.
        init_value: mapping factor name -> default, for the life of the env.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 4}  # noqa: RUF012

    def __init__(
        self,
        resolution: int = 224,
        images: Sequence[Image.Image] | None = None,
        render_mode: str | None = None,
        background_power_decay: float = 1.0,
        *,
        init_value: Mapping[str, Any] | None = None,
    ):
        if resolution < 1:
            raise ContractError(f"resolution={resolution}: expected >= 1")
        images = generated_images(max(8, resolution // 4)) if images is None else list(images)
        if not images:
            raise ContractError("images is empty: expected at least one")
        super().__init__(
            Factors(len(images), background_power_decay), render_mode, init_value, (resolution, resolution)
        )
        self._resolution = resolution
        self._images = [image.convert("RGBA") for image in images]
        n = len(images)
        self._shapes = {"background": (2, 1), "locations": (n, 2), "rotations": (n, 1)}
        self._highs = {"background": MAX_POSITION, "locations": MAX_POSITION, "rotations": 1.0}
        bounds = {f"current_{part}": (self._highs[part], self._shapes[part]) for part in _PARTS}
        bounds |= {f"target_{part}": (self._highs[part], self._shapes[part]) for part in _PARTS}
        bounds["target_background"] = (1.0, (2, 1))
        self.observation_space = gym.spaces.Dict(
            {name: gym.spaces.Box(0.0, high, shape, np.float64) for name, (high, shape) in bounds.items()}
        )
        self.action_space = gym.spaces.Dict(
            {f"delta_{part}": gym.spaces.Box(-MAX_STEP, MAX_STEP, self._shapes[part]) for part in _PARTS}
        )

    # ------------------------------------------------------------------ episode
    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
        """Start an episode; the same seed and options give the same one. See the class for `options`."""
        super().reset(seed=seed)
        options = options or {}
        self.variation_space.draw_factors(seed, options, DEFAULT_VARIATIONS)
        drawn, drawn_target = self._drawn(), self._drawn()
        state, target = options.get("state"), options.get("target_state")
        self._current = drawn if state is None else self._split("state", state)
        self._target = drawn_target if target is None else self._split("target_state", target)
        self._started = True
        self._prepare_picture()
        self._goal = self._draw_goal()
        return self._observation(), self._info()

    def step(self, action: Any) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Move everything once. Raises ContractError unless `action` has the shapes of the action space."""
        self._require_episode()
        delta = self._split_action(action)
        background, locations, rotations = (now + change for now, change in zip(self._current, delta, strict=True))
        self._current = Arrangement(
            np.clip(background, 0.0, MAX_POSITION), np.clip(locations, 0.0, MAX_POSITION), rotations % 1.0
        )
        info = self._info()
        success = info["is_success"]
        return self._observation(), float(success), success, False, info

    def sample_goal(self, seed: int | None = None) -> np.ndarray:
        """A goal state (2 + 3n,); None draws from the env's own generator."""
        return self._drawn(None if seed is None else np.random.default_rng(seed)).flat()

    def _drawn(self, rng: np.random.Generator | None = None) -> Arrangement:
        rng = rng or self.np_random
        return Arrangement(*(rng.uniform(0.0, self._highs[part], self._shapes[part]) for part in _PARTS))

    def _remaining(self) -> Arrangement:
        """What is left to do; rotations go the short way round."""
        background, locations, rotations = (end - now for now, end in zip(self._current, self._target, strict=True))
        return Arrangement(background, locations, (rotations + 0.5) % 1.0 - 0.5)

    def _get_optimal_action(self) -> Any:
        """The action that reaches the target at once. It may exceed the action space."""
        self._require_episode()
        return {f"delta_{part}": delta for part, delta in zip(_PARTS, self._remaining(), strict=True)}

    def _observation(self) -> dict[str, Any]:
        current = {f"current_{part}": value.copy() for part, value in zip(_PARTS, self._current, strict=True)}
        target = {f"target_{part}": value.copy() for part, value in zip(_PARTS, self._target, strict=True)}
        return current | target

    def _info(self) -> dict[str, Any]:
        background, location, rotation = (float(np.abs(part).sum()) for part in self._remaining())
        state = self._current.flat()
        return {
            "env_name": "ImagePositioning",
            "state": state,
            "proprio": state.copy(),
            "goal_state": self._target.flat(),
            "background_distance": background,
            "location_distance": location,
            "rotation_distance": rotation,
            "is_success": max(background, location, rotation) < TOLERANCE,
            "goal": self._goal.copy(),
        }

    def _split_action(self, action: Any) -> list[np.ndarray]:
        names = [f"delta_{part}" for part in _PARTS]
        if not isinstance(action, Mapping) or set(action) != set(names):
            raise ContractError(f"action={action!r}: expected a mapping with {names}")
        delta = [np.asarray(action[name], np.float64) for name in names]
        for name, part, change in zip(names, _PARTS, delta, strict=True):
            if change.shape != self._shapes[part] or not np.isfinite(change).all():
                raise ContractError(f"action[{name!r}]={change}: expected finite numbers {self._shapes[part]}")
        return delta

    def _parts(self, name: str, value: Any) -> list[np.ndarray]:
        flat = np.asarray(value, np.float64)
        n = len(self._images)
        if flat.shape != (2 + 3 * n,) or not np.isfinite(flat).all():
            raise ContractError(f"{name} of shape {flat.shape}: expected {2 + 3 * n} finite numbers")
        return [
            part.reshape(self._shapes[key]) for key, part in zip(_PARTS, np.split(flat, [2, 2 + 2 * n]), strict=True)
        ]

    # ------------------------------------------------------------------ restoring
    def _split(self, name: str, value: Any) -> Arrangement:
        parts = self._parts(name, value)
        for key, part in zip(_PARTS, parts, strict=True):
            if part.min() < 0 or part.max() > self._highs[key]:
                raise ContractError(f"{name}: {key} {part.ravel()}: expected 0..{self._highs[key]}")
        return Arrangement(*(part.copy() for part in parts))

    def _set_state(self, state: Any) -> None:
        """Arrange everything as in `state` (2 + 3n,)."""
        self._require_episode()
        self._current = self._split("state", state)

    def _set_goal_state(self, goal_state: Any) -> None:
        """Make `goal_state` (2 + 3n,) the target and draw the goal again."""
        self._require_episode()
        self._target = self._split("goal_state", goal_state)
        self._goal = self._draw_goal()

    def reset_options_from_dataset(self, init_row: Mapping[str, Any], goal_row: Mapping[str, Any]) -> dict[str, Any]:
        """Reset options that restore a recorded start, target and every recorded `variation.*` factor.

        Args:
            init_row: column -> value at the start; `state`.
            goal_row: goal_<column> -> value at the goal; `goal_state`.

        Raises:
            MissingKeyError: a column is not there.
        """
        return {
            "variation": [],
            "variation_values": recorded_factors(init_row),
            "state": column(init_row, "state").reshape(-1),
            "target_state": column(goal_row, "goal_state").reshape(-1),
        }

    # ------------------------------------------------------------------ picture
    def render(self, mode: str = "current") -> np.ndarray | None:
        """The picture, a new uint8 array (H, W, 3), of the present or, with mode "target", of the target."""
        self._require_episode()
        if mode not in ("current", "target"):
            raise ContractError(f"mode={mode!r}: expected 'current' or 'target'")
        if self.render_mode is None:
            return None
        return self._picture() if mode == "current" else self._draw_goal()

    def _prepare_picture(self) -> None:
        seed, decay, colors, sizes = (
            self.variation_space.value_of(name)
            for name in ("background.noise_seed", "background.power_decay", "images.border_color", "images.size")
        )
        if not self._is_new_backdrop(seed, decay.item(), colors.tobytes(), sizes.tobytes()):
            return
        self._noise = Image.fromarray(noise(2 * self._resolution, decay.item(), np.random.default_rng(seed)))
        self._framed = [
            _framed(image, tuple(color), size)
            for image, color, size in zip(self._images, colors.tolist(), sizes.tolist(), strict=True)
        ]

    def _draw_goal(self) -> np.ndarray:
        return self._composed(self._target)

    def _picture(self) -> np.ndarray:
        return self._composed(self._current)

    def _composed(self, arrangement: Arrangement) -> np.ndarray:
        side = self._resolution
        top, left = (int(side * offset) for offset in arrangement.background.ravel())
        canvas = self._noise.crop((left, top, left + side, top + side)).convert("RGB")
        for image, (x, y), (turn,) in zip(
            self._framed, arrangement.locations.tolist(), arrangement.rotations.tolist(), strict=True
        ):
            turned = image.rotate(360.0 * turn, Image.Resampling.BILINEAR)
            canvas.paste(turned, (int(x * side), int(y * side)), turned)
        height, width = self._shape
        if self._shape != (side, side):
            larger = height > side or width > side
            canvas = canvas.resize((width, height), Image.Resampling.BILINEAR if larger else Image.Resampling.BOX)
        return np.array(canvas)


def noise(side: int, decay: float, rng: np.random.Generator) -> np.ndarray:
    """Noise whose amplitude falls with frequency like (1/f)^decay, stretched to 0..255: uint8 (side, side)."""
    spectrum = fft.rfft2(rng.standard_normal((side, side)))
    frequency = np.hypot(fft.fftfreq(side)[:, None], fft.rfftfreq(side))
    frequency[0, 0] = 1.0
    values = fft.irfft2(spectrum * frequency**-decay, (side, side))
    low, high = values.min(), values.max()
    return np.rint((values - low) * (255.0 / max(high - low, 1e-12))).astype(np.uint8)


def generated_images(side: int) -> list[Image.Image]:
    """Three images, RGBA of `side` px, that look different whichever way up they are."""
    low, middle, high = 0.15 * side, 0.5 * side, 0.85 * side
    papers = ((250, 220, 120, 255), (160, 220, 250, 255), (210, 250, 190, 255))
    inks = ((170, 40, 40), (20, 60, 140), (20, 90, 50))
    images = [Image.new("RGBA", (side, side), paper) for paper in papers]
    triangle, angle, pie = (ImageDraw.Draw(image) for image in images)
    triangle.polygon([(middle, low), (high, high), (low, high)], inks[0])
    angle.polygon(
        [(low, low), (0.4 * side, low), (0.4 * side, 0.6 * side), (high, 0.6 * side), (high, high), (low, high)],
        inks[1],
    )
    pie.pieslice((low, low, high, high), 30, 270, inks[2])
    return images


def _framed(image: Image.Image, color: tuple[int, ...], size: float) -> Image.Image:
    width, height = (max(1, round(length * size)) for length in image.size)
    return ImageOps.expand(image.resize((width, height), Image.Resampling.BILINEAR), _BORDER, (*color, 255))
