"""Pretrained LeRobot policies. The only module that imports the package `lerobot`, and only when one is loaded."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stable_worldmodel.errors import MissingDependencyError


def load_pretrained_policy(
    name: str | Path, device: str | None = None, rename_map: Mapping[str, str] | None = None
) -> tuple[Any, Any, Any]:
    """Policy, preprocessor and postprocessor of a folder or hub id, by the installed package `lerobot` (>= 0.4.4).

    Raises MissingDependencyError without it.
    """
    try:
        configs = importlib.import_module("lerobot.configs.policies")
        factory = importlib.import_module("lerobot.policies.factory")
    except ImportError as error:
        raise MissingDependencyError(
            f"the network of {str(name)!r} is code of the package lerobot, which could not be imported ({error}): "
            "pip install 'lerobot>=0.4.4'"
        ) from error
    config = configs.PreTrainedConfig.from_pretrained(str(name))
    if device is not None:
        config.device = device
    policy = factory.get_policy_class(config.type).from_pretrained(str(name), config=config)
    overrides: dict[str, Any] = {"device_processor": {"device": str(config.device)}}
    if rename_map:
        overrides["rename_observations_processor"] = {"rename_map": dict(rename_map)}
    pre, post = factory.make_pre_post_processors(
        policy_cfg=config, pretrained_path=str(name), preprocessor_overrides=overrides
    )
    return policy, pre, post
