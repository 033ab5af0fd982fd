"""The standard stack of wrappers that World puts around every env."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import gymnasium as gym

from stable_worldmodel.wrappers.history import StackedWrapper
from stable_worldmodel.wrappers.images import AddPixelsWrapper, ResizeGoalWrapper
from stable_worldmodel.wrappers.info import EnsureInfoKeysWrapper, EverythingToInfoWrapper, SteadyGoalWrapper

PIXELS_PATTERN = r"^pixels(?:\..*)?$"


class MegaWrapper(gym.Wrapper):
    """Pixels, everything into info, required keys, goal, one goal size, history: in this order.

    Args:
        image_shape: (H, W) or (H, W, C) of `pixels`, and of `goal` unless `goal_shape` is given.
        pixels_transform, goal_transform: applied to the PIL image.
        required_keys: regular expressions that must each match an info key.
        separate_goal: once the env has given a `goal`, insist on one at every reset and step.
        add_pixels: render at all; without it no goal is resized either.
        history_size, frame_skip: see StackedWrapper.
    """

    def __init__(
        self,
        env: gym.Env,
        image_shape=(84, 84),
        pixels_transform: Callable | None = None,
        goal_transform: Callable | None = None,
        required_keys: Iterable[str] | None = None,
        separate_goal: bool = True,
        *,
        goal_shape=None,
        image_resample: str | int | None = None,
        add_pixels: bool = True,
        history_size: int = 1,
        frame_skip: int = 1,
    ):
        patterns = list(required_keys or ())
        if add_pixels:
            env = AddPixelsWrapper(env, image_shape, pixels_transform, image_resample)
            patterns.append(PIXELS_PATTERN)
        env = EverythingToInfoWrapper(env)
        if patterns:
            env = EnsureInfoKeysWrapper(env, patterns)
        if separate_goal:
            env = SteadyGoalWrapper(env)
        if add_pixels:
            env = ResizeGoalWrapper(env, goal_shape or image_shape, goal_transform, image_resample)
        if history_size > 1:
            env = StackedWrapper(env, None, history_size, frame_skip)
        super().__init__(env)
        self.history_size = history_size
