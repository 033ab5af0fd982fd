"""Spaces of one factor: `Discrete`, `MultiDiscrete`, `Box`, `RGBBox`, and the behaviour they share."""

from __future__ import annotations

import copy
import logging
import operator
import time
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium as gym
import numpy as np

from stable_worldmodel.errors import ContractError

logger = logging.getLogger(__name__)

Constraint = Callable[[Any], Any]


class SamplingError(ContractError, RuntimeError):
    """Rejection sampling gave up: no draw satisfied the constraint.

    Attributes:
        name: dotted name of the space that gave up, relative to the space that was asked; "" is that space itself.
    """

    def __init__(self, detail: str, name: str = "") -> None:
        super().__init__(detail, name)
        self.detail = detail
        self.name = name

    def __str__(self) -> str:
        return f"{self.name}: {self.detail}" if self.name else self.detail

    def below(self, key: str) -> SamplingError:
        """The same failure as seen from the space that holds the failing one under `key`."""
        return SamplingError(self.detail, f"{key}.{self.name}" if self.name else key)


class Stateful(gym.Space[Any]):
    """A space with a constraint, whose random generator is built when the first sample needs it.

    An environment seeds its whole variation space at every reset and then draws a few factors of it; building all
    generators would cost more than the draws. The streams are those that Gymnasium gives for the same seed.
    """

    constrain_fn: Constraint | None = None
    _seed: int | None = None

    def seed(self, seed: Any = None) -> Any:
        """Restart the random stream; return the seed in use. `None` takes fresh entropy."""
        seed = np.random.SeedSequence().entropy if seed is None else operator.index(seed)
        if seed < 0:
            raise ContractError(f"seed={seed}: expected a non-negative integer or None")
        self._seed = seed
        self._np_random = None  # type: ignore[assignment]
        return seed

    @property
    def np_random(self) -> np.random.Generator:
        """The generator that samples are drawn from."""
        if self._np_random is None:
            self._np_random = np.random.Generator(np.random.PCG64(self._seed))
        return self._np_random

    def _repr_html_(self) -> str:
        """A table of factors for notebooks."""
        from stable_worldmodel.spaces.notebook import space_html

        return space_html(self)

    def _accepts(self, value: Any) -> bool:
        return self.constrain_fn is None or bool(self.constrain_fn(value))

    def _accepts_default(self, value: Any) -> bool:
        """Test a default, which may be given before the spaces that the constraint reads have been built."""
        try:
            return self._accepts(value)
        except (AttributeError, NameError):
            return True  # e.g. `self.variation_space` is not assigned yet: `check` will tell


class Leaf(Stateful):
    """Current value, default, constraint and rejection sampling, to be mixed into a Gymnasium space.

    Args:
        *args: positional arguments of the Gymnasium space.
        init_value: default, coerced like `set_value` does it.
        constrain_fn: called with a value; truthy means allowed. It may read other spaces through their `.value`.
            A default is tested at once, unless the constraint reads a name or attribute that does not exist yet.
        **kwargs: keyword arguments of the Gymnasium space.

    Raises:
        ContractError: `init_value` does not fit the space or its constraint.
    """

    def __init__(self, *args: Any, init_value: Any = None, constrain_fn: Constraint | None = None, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.constrain_fn = constrain_fn
        self._init_value: Any = None
        if init_value is not None:
            self.set_init_value(init_value)
        self._value = self._init_value

    @property
    def init_value(self) -> Any:
        """A copy of the default, None if there is none."""
        return _copied(self._init_value)

    @property
    def value(self) -> Any:
        """A copy of the value last set or sampled; the default at the start."""
        return _copied(self._value)

    def reset(self) -> None:
        """Return to the default, None if there is none."""
        self._value = self._init_value

    def set_value(self, value: Any) -> None:
        """Set the current value.

        Numbers and lists take the space's dtype where this loses nothing but float precision; a scalar fills the
        shape. Raises ContractError, and keeps the old value, if the result is out of bounds or the constraint rejects.
        """
        value = self._fitted(value)
        if not self._accepts(value):
            raise ContractError(f"{value!r}: rejected by constrain_fn of {self!r}")
        self._value = value

    def set_init_value(self, value: Any) -> None:
        """Set the default, with the rules of `set_value`. The current value changes at the next `reset`."""
        value = self._fitted(value)
        if not self._accepts_default(value):
            raise ContractError(f"init_value={value!r}: rejected by constrain_fn of {self!r}")
        self._init_value = value

    def check(self) -> bool:
        """Whether there is a current value and the constraint accepts it; a rejected value is logged."""
        # Bounds were tested when the value went in; what the constraint reads may have changed since.
        if self._value is None:
            return False
        if not self._accepts(self._value):
            logger.warning("%r: value %r is rejected by constrain_fn", self, self._value)
            return False
        return True

    def contains(self, x: Any) -> bool:
        """Whether `x` is in bounds and the constraint accepts it."""
        if not super().contains(x):
            return False
        if self.constrain_fn is None:
            return True
        return self._accepts(x if isinstance(x, (np.ndarray, int)) else self._coerced(x))

    def sample(
        self,
        *args: Any,
        max_tries: int = 1000,
        warn_after_s: float | None = 5.0,
        set_value: bool = True,
        **kwargs: Any,
    ) -> Any:
        """Draw until the space contains the draw.

        Args:
            *args: passed to the Gymnasium space (`mask`, `probability`).
            max_tries: draws before giving up.
            warn_after_s: log one warning when it takes longer than this; None never warns.
            set_value: whether the draw becomes the current value.
            **kwargs: passed to the Gymnasium space.

        Raises:
            SamplingError: a RuntimeError; `max_tries` draws were rejected. The value is unchanged.
        """
        for _ in attempts(self, max_tries, warn_after_s):
            drawn = self._draw(*args, **kwargs)
            if self.contains(drawn):
                break
        if set_value:
            self._value = _copied(drawn)
        return drawn

    def _draw(self, *args: Any, **kwargs: Any) -> Any:
        """One draw that ignores the constraint."""
        return super().sample(*args, **kwargs)

    def _coerced(self, value: Any) -> Any:
        return _as_array(self, value)

    def _fitted(self, value: Any) -> Any:
        """Return `value` as this space stores it, or raise ContractError if it is out of bounds."""
        value = self._coerced(value)
        if not super().contains(value):
            raise ContractError(f"{value!r}: out of bounds of {self!r}")
        return value


class Discrete(Leaf, gym.spaces.Discrete):
    """Integers `start ... start + n - 1`; values are Python ints."""

    def _draw(self, *args: Any, **kwargs: Any) -> int:
        return int(super()._draw(*args, **kwargs))

    def _coerced(self, value: Any) -> int:
        return int(_as_array(self, value))


class MultiDiscrete(Leaf, gym.spaces.MultiDiscrete):
    """Integer arrays of the shape of `nvec`; the constraint sees the whole array."""


class Box(Leaf, gym.spaces.Box):
    """Arrays between `low` and `high`."""

    def __init__(self, *args: Any, init_value: Any = None, constrain_fn: Constraint | None = None, **kwargs: Any):
        super().__init__(*args, init_value=init_value, constrain_fn=constrain_fn, **kwargs)
        self._range = self._uniform_range()

    def _uniform_range(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Lower end and width in float64 of a closed box whose draws float64 can represent, None for other boxes."""
        integral = self.dtype.kind != "f"
        if not self.is_bounded() or (integral and self.dtype.itemsize > 4):
            return None
        low = self.low.astype(np.float64)
        with np.errstate(over="ignore"):
            width = self.high.astype(np.float64) - low + integral
        return (low, width) if np.isfinite(width).all() else None

    def contains(self, x: Any) -> bool:
        """Whether `x` is in bounds and the constraint accepts it."""
        if not isinstance(x, np.ndarray) or x.dtype != self.dtype or x.shape != self._shape:
            return super().contains(x)
        # The common case, which needs neither a warning nor a cast, at half of Gymnasium's time.
        return bool((x >= self.low).all() and (x <= self.high).all()) and self._accepts(x)

    def _draw(self, *args: Any, **kwargs: Any) -> np.ndarray:
        if self._range is None or args or kwargs:
            return super()._draw(*args, **kwargs)
        # What Gymnasium computes for a closed box, without sorting the coordinates by boundedness at every draw.
        low, width = self._range
        drawn = low + width * self.np_random.random(self._shape)
        return np.asarray(drawn if self.dtype.kind == "f" else np.floor(drawn), self.dtype)


class RGBBox(Box):
    """Colours: uint8 arrays 0 ... 255 with an axis of size 3.

    Raises:
        TypeError: bounds or dtype are given.
        ContractError: no axis of `shape` has size 3.
    """

    def __init__(self, shape: tuple[int, ...] = (3,), *args: Any, init_value: Any = None, **kwargs: Any):
        fixed = {"low", "high", "dtype"} & kwargs.keys()
        if args or fixed:
            raise TypeError(f"RGBBox is uint8 in 0..255, found {sorted(fixed) or args}; use Box for other bounds")
        if 3 not in shape:
            raise ContractError(f"shape={shape}: expected an axis of size 3 for the colour channels")
        super().__init__(low=0, high=255, shape=shape, dtype=np.uint8, init_value=init_value, **kwargs)


class _Wrapped(gym.Space[Any]):
    """Another space behind the interface that `Leaf` extends."""

    def __init__(self, space: gym.Space[Any]):
        super().__init__(space.shape, space.dtype)
        self.space = space

    def sample(self, *args: Any, **kwargs: Any) -> Any:
        return self.space.sample(*args, **kwargs)

    def contains(self, x: Any) -> bool:
        return self.space.contains(x)

    def __repr__(self) -> str:
        return repr(self.space)


class Tracked(Leaf, _Wrapped):
    """The value of a plain Gymnasium space inside a `Dict`; the space itself stays as it is."""

    def _coerced(self, value: Any) -> Any:
        if isinstance(self.space, gym.spaces.Discrete):
            return int(_as_array(self, value))
        if isinstance(self.space, gym.spaces.Box | gym.spaces.MultiDiscrete | gym.spaces.MultiBinary):
            return _as_array(self, value)
        return copy.deepcopy(value)


def attempts(space: gym.Space[Any], max_tries: int, warn_after_s: float | None) -> Iterator[int]:
    """Count tries of a rejection sampler; the caller leaves the loop when a draw is accepted.

    Logs one warning after `warn_after_s` seconds and raises SamplingError after `max_tries`.
    """
    start = time.monotonic()
    for attempt in range(max_tries):
        yield attempt
        if warn_after_s is not None and time.monotonic() - start > warn_after_s:
            logger.warning("sampling %.120r is slow: %d draws rejected in %.1f s", space, attempt + 1, warn_after_s)
            warn_after_s = None
    raise SamplingError(
        f"constrain_fn rejected {max_tries} draws of {space!r:.120}; "
        "widen the constraint, or check the values of the factors it reads"
    )


def _as_array(space: gym.Space[Any], value: Any) -> np.ndarray:
    """A new array of the space's dtype and shape that equals `value` up to float precision, else ContractError."""
    dtype, shape = np.dtype(space.dtype), space.shape or ()
    try:
        found = np.asarray(value)
    except ValueError as error:
        raise ContractError(f"{value!r}: expected an array of shape {shape} ({error})") from None
    if found.dtype.kind not in "biuf":
        raise ContractError(f"{value!r}: expected numbers of dtype {dtype} and shape {shape}")
    with np.errstate(invalid="ignore", over="ignore"):
        array = found.astype(dtype)
    if dtype.kind != "f" and not np.array_equal(array, found):
        raise ContractError(f"{value!r}: cannot be stored as {dtype} without changing it")
    if array.shape == shape:
        return array
    if array.ndim == 0 or array.size == np.prod(shape) == 1:
        return np.full(shape, array.reshape(()), dtype)  # a scalar, or one element in another number of axes
    raise ContractError(f"{value!r}: expected shape {shape}, found {array.shape}")


def _copied(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.copy()
    return value if isinstance(value, (int, type(None))) else copy.deepcopy(value)
