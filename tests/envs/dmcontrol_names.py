"""The DM Control environments, by the part of their ids that differs."""

from __future__ import annotations

import stable_worldmodel.envs as swm_envs

NAMES = sorted(
    id.removeprefix("swm/").removesuffix("DMControl-v0") for id in swm_envs.WORLDS if id.endswith("DMControl-v0")
)
