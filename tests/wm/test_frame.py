"""The floor that draws the next frame."""

import pytest
import torch

from stable_worldmodel.errors import ContractError
from stable_worldmodel.wm.registry import build_model, preset_config

SIZE = 32


def moving_dots(count: int, rng: torch.Generator) -> dict[str, torch.Tensor]:
    """Clips of two frames: a dot of 2 by 2 px, which the action moves by up to 4 px each way."""
    corner = torch.randint(6, SIZE - 8, (count, 2), generator=rng)
    move = torch.randint(-4, 5, (count, 2), generator=rng)
    pixels = torch.zeros(count, 2, 3, SIZE, SIZE, dtype=torch.uint8)
    for clip, start, end in zip(pixels, corner, corner + move, strict=True):
        for frame, (row, column) in zip(clip, (start, end), strict=True):
            frame[0, row : row + 2, column : column + 2] = 255
    return {"pixels": pixels, "action": torch.stack([move / 4, torch.zeros(count, 2)], dim=1)}


def test_a_small_thing_is_seen_to_move():
    """With l1_weight=1 it stays where it was: half of the squared error of a still frame is left."""
    torch.manual_seed(0)
    model = build_model(preset_config("frame", "debug", action_dim=2)).train()
    optimizer, rng = torch.optim.AdamW(model.parameters(), 2e-3), torch.Generator().manual_seed(0)
    for _ in range(120):
        loss, metrics = model(moving_dots(32, rng))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert metrics["mse"] < 0.15 * 2 * 4 / (3 * SIZE**2)  # of two dots of 4 px in one of three channels


def test_weights_are_checked():
    with pytest.raises(ContractError, match="l1_weight=-1: expected at least 0"):
        preset_config("frame", "debug", l1_weight=-1)
