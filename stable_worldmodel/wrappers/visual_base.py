"""What all visual wrappers share: which images they change, when, and with which random numbers.

A changed frame is a pure function of the frame, the reset seed, the wrapper's class name and `seed`, and the step. No
random number is taken from the env, and nothing drawn in one episode or step reaches another.
"""

from __future__ import annotations

import hashlib
import zlib
from collections import deque
from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np

from stable_worldmodel.errors import ContractError, MissingKeyError
from stable_worldmodel.wrappers.base import Info, InfoWrapper
from stable_worldmodel.wrappers.images import is_image
from stable_worldmodel.wrappers.schedules import Strength

Strengths = Mapping[str, float]


class VisualWrapper(InfoWrapper):
    """Base of the wrappers that change images; subclasses implement `draw`.

    Images are uint8 (H, W, C) with C in {1, 3, 4}; alpha is left as it is. On a history (T, H, W, C) only the newest
    frame is drawn, and the older ones are those drawn when they were newest.

    Args:
        env: gives the images in its info; place the wrapper after AddPixelsWrapper, or in World's `extra_wrappers`.
        strengths: name -> number >= 0, or a schedule of it. Where all are 0 the image stays as it is.
        keys: info keys to change; default: `pixels` and every `pixels.<view>`. Add `goal` for a goal image.
        seed: tells apart wrappers of one class around one env.
        per: what schedules count: 'step', the env steps since reset, or 'episode', the reset option `episode_index`. An
            episode cannot know how many came before it, so one whose options do not tell is number 0.
        redraw: draw random numbers once per 'episode' or anew at every 'step'; default: `default_redraw`.

    Raises:
        ContractError: an argument is out of range; an image is not one; `episode_index` is no index.
        MissingKeyError: info lacks a key of `keys`, or has no `pixels` at all.
    """

    shares: ClassVar[tuple[str, ...]] = ()  # the strengths that are at most 1; others have no limit
    default_redraw: ClassVar[str] = "episode"
    same_for_all_keys: ClassVar[bool] = True  # else every info key has its own random numbers

    def __init__(
        self,
        env: gym.Env,
        strengths: Mapping[str, Strength],
        *,
        keys: str | Sequence[str] | None = None,
        seed: int = 0,
        per: str = "step",
        redraw: str | None = None,
    ):
        super().__init__(env)
        self._strengths = dict(strengths)
        self._keys = [keys] if isinstance(keys, str) else keys
        self._seed = whole_number(seed, "seed")
        self._per = one_of(per, ("step", "episode"), "per")
        self._redraw = one_of(redraw or self.default_redraw, ("step", "episode"), "redraw")
        for name, value in self._strengths.items():
            if not callable(value):
                self._check_strength(name, value)
        self._stream = 0
        self._t = 0
        self._episode_index = 0
        self._drawn: dict[str, deque] = {}  # the frames a history shows, by key

    def draw(self, image: np.ndarray, strengths: Strengths, t: int, rng: np.random.Generator) -> np.ndarray:
        """The changed image; `image` itself must not be written to.

        Args:
            image: uint8 (H, W, C), C = 1 or 3.
            strengths: their values now.
            t: env steps since reset.
            rng: at the start of the stream of this episode, or of this step with redraw='step'. So an episode's
                parameters need no place to live: drawing them again gives the same.
        """
        raise NotImplementedError

    def amend_reset(self, info: Info, observation: Any, seed: int | None, options: dict | None) -> None:
        origin = np.random.SeedSequence().entropy if seed is None else int(seed)
        self._stream = _digest(type(self).__name__, self._seed, origin)
        self._t = 0
        self._drawn = {}
        self._episode_index = whole_number((options or {}).get("episode_index", 0), "options['episode_index']")
        self.amend(info)

    def amend_step(self, info: Info, observation, action, reward, terminated, truncated) -> None:
        self._t += 1
        self.amend(info)

    def amend(self, info: Info) -> None:
        strengths = {name: self._value_now(name, value) for name, value in self._strengths.items()}
        for key in self._keys_in(info):
            image = info[key]
            if is_image(image):
                info[key] = self._change(key, image, strengths)
            elif isinstance(image, np.ndarray) and image.ndim == 4 and len(image) and is_image(image[-1]):
                info[key] = self._change_history(key, image, strengths)
            else:
                found = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
                raise ContractError(
                    f"info[{key!r}]: expected a uint8 array (H, W, C) or (T, H, W, C), C in 1, 3, 4; found {found}"
                )

    def _keys_in(self, info: Info) -> Sequence[str]:
        keys = self._keys
        if keys is None:
            keys = [key for key in info if key == "pixels" or key.startswith("pixels.")]
        if not keys or any(key not in info for key in keys):
            raise MissingKeyError(f"no image under {list(keys) or 'pixels'} in info; its keys are {sorted(info)}")
        return keys

    def _change(self, key: str, image: np.ndarray, strengths: Strengths) -> np.ndarray:
        if strengths and not any(strengths.values()):
            return image
        moment = self._t + 1 if self._redraw == "step" else 0
        place = 0 if self.same_for_all_keys else zlib.crc32(key.encode())
        rng = np.random.default_rng(np.random.SeedSequence(self._stream, spawn_key=(moment, place)))
        if image.shape[2] < 4:
            return self.draw(np.ascontiguousarray(image), strengths, self._t, rng)
        changed = image.copy()
        changed[:, :, :3] = self.draw(np.ascontiguousarray(image[:, :, :3]), strengths, self._t, rng)
        return changed

    def _change_history(self, key: str, frames: np.ndarray, strengths: Strengths) -> np.ndarray:
        skip = self.env.get_wrapper_attr("frameskip") if self.env.has_wrapper_attr("frameskip") else 1
        length = (len(frames) - 1) * skip + 1
        newest = self._change(key, frames[-1].copy(), strengths)
        drawn = self._drawn.setdefault(key, deque([newest] * length, maxlen=length))
        if self._t > 0:
            drawn.append(newest)
        return np.stack(list(drawn)[::skip])

    def _value_now(self, name: str, value: Strength) -> float:
        if not callable(value):
            return value
        number = value(self._t if self._per == "step" else self._episode_index)
        self._check_strength(name, number)
        return number

    def _check_strength(self, name: str, value: Any) -> None:
        limit = 1.0 if name in self.shares else np.inf
        number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
        if not number or not 0 <= value <= limit or value == np.inf:
            raise ContractError(f"{type(self).__name__}: {name}={value!r}, expected a number from 0 to {limit:g}")


def _digest(*parts: Any) -> int:
    """128 bits that depend on every part, the same in every process."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:16], "little")


def whole_number(value: Any, name: str, least: int = 0) -> int:
    """`value` as an int, at least `least`; anything else is a ContractError that calls it `name`."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ContractError(f"{name}={value!r}: expected an integer >= {least}")
    return int(value)


def one_of(value: Any, choices: tuple[str, ...], name: str) -> str:
    """`value` if it is one of `choices`; else a ContractError that calls it `name`."""
    if value not in choices:
        raise ContractError(f"{name}={value!r}: expected one of {', '.join(choices)}")
    return value
