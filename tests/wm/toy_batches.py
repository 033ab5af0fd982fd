"""Small clips, in which the action moves a bright square over a dark image."""

from __future__ import annotations

import torch

from stable_worldmodel.wm.registry import build_model, preset_config

SIZE = 32


def clips(n=8, frames=4, action_dim=2, seed=0, size=SIZE):
    """`pixels` (n, T, 3, size, size) uint8, `action` (n, T, action_dim) in [-1, 1] with NaN at the end, `proprio`
    (n, T, 2), `reward` (n, T) with NaN at first, and the last frame as goal.
    """
    rng = torch.Generator().manual_seed(seed)
    actions = torch.rand(n, frames, action_dim, generator=rng) * 2 - 1
    start = torch.rand(n, 1, 2, generator=rng) * 0.6 + 0.2
    moves = torch.cat([torch.zeros(n, 1, 2), 0.1 * actions[:, :-1, :2]], dim=1)
    place = (start + moves.cumsum(dim=1)).clamp(0, 1)  # (n, T, 2)
    pixels = torch.stack([torch.stack([draw(p, size) for p in path]) for path in place])
    reward = -(place - 0.5).norm(dim=-1)
    actions[:, -1], reward[:, 0] = torch.nan, torch.nan
    return {
        "pixels": pixels,
        "action": actions,
        "proprio": 4 * place - 2,
        "reward": reward,
        "goal_pixels": pixels[:, -1:],
        "goal_proprio": 4 * place[:, -1:] - 2,
        "goal_step": torch.full((n,), frames - 1),
    }


def draw(place, size=SIZE):
    """A dark image (3, size, size) with a bright square of a quarter of its side."""
    image = torch.full((3, size, size), 30, dtype=torch.uint8)
    side = size // 4
    row, column = (place * (size - side)).round().int().tolist()
    image[:, row : row + side, column : column + side] = 220
    return image


# What a model of each kind needs beyond its preset `debug` to learn from these clips.
OVERRIDES = {
    "dreamer": {"image_size": SIZE, "imagined_steps": 3},
    "frame": {"image_size": 16},
    "tdmpc2": {"image_size": 48},
}
FRAMES = {"tdmpc2": 4, "dreamer": 5}


def debug_model(name, seed=0, **overrides):
    torch.manual_seed(seed)
    return build_model(preset_config(name, "debug", action_dim=2, **{**OVERRIDES.get(name, {}), **overrides}))


def batch_for(name, n=8, seed=0):
    config = preset_config(name, "debug", **OVERRIDES.get(name, {}))
    return clips(n, FRAMES.get(name, 4), seed=seed, size=config.image_size)
