"""Next-frame prediction: a U-Net draws how the last frame changes, from the frames before and the action.

Nothing is learned but drawing, so a plan is a video and its cost a distance of images. That is the floor for models
that plan in latent space.

Shapes: B clips, n envs, S candidates, N = n * S, T frames, L context frames, H planned steps, C window, s image size,
A flattened size of one action block.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from stable_worldmodel.errors import ContractError
from stable_worldmodel.protocols import Info
from stable_worldmodel.wm.config import PresetConfig
from stable_worldmodel.wm.loss import weighted_sum
from stable_worldmodel.wm.tensors import Batch, Metrics, action_blocks, check_images, entry, first_sample, windows


@dataclass(frozen=True)
class FrameConfig(PresetConfig):
    """Sizes of a frame model."""

    model_type: ClassVar[str] = "frame"
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {},
        "small": {"width": 16},
        "debug": {"width": 8, "image_size": 32},
    }

    action_dim: int = 10  # A
    image_size: int = 64
    window: int = 3  # frames the next one is drawn from
    width: int = 32  # channels at full resolution; 2 and 4 times as many at half and a quarter
    # The median of what may come, which alone minimises it, is a frame in which nothing has moved.
    l1_weight: float = 0.02
    rollout_rows: int = 512  # candidates rolled out at a time, a bound on memory

    def __post_init__(self) -> None:
        self._at_least_one("action_dim", "window", "width", "rollout_rows")
        if not self.l1_weight >= 0:
            raise ContractError(f"l1_weight={self.l1_weight}: expected at least 0")
        if self.width % 8:
            raise ContractError(f"width={self.width}: expected a multiple of 8")
        if self.image_size % 4:
            raise ContractError(f"image_size={self.image_size}: expected a multiple of 4")


class ConvolutionPair(nn.Module):
    """Two convolutions with norms; the action shifts and scales what the norms leave, which alone would remove it."""

    def __init__(self, channels: int, width: int, action_dim: int):
        super().__init__()
        self.convolutions = nn.ModuleList(nn.Conv2d(before, width, 3, padding=1) for before in (channels, width))
        self.norms = nn.ModuleList(nn.GroupNorm(8, width) for _ in range(2))
        self.modulate = nn.Linear(action_dim, 2 * width)

    def forward(self, x: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        """Map x (N, channels, s, s) and actions (N, A) to (N, width, s, s)."""
        scale, shift = self.modulate(actions)[:, :, None, None].chunk(2, dim=1)  # each (N, width, 1, 1)
        x = F.silu(self.norms[0](self.convolutions[0](x)) * (1 + scale) + shift)
        return F.silu(self.norms[1](self.convolutions[1](x)))


class UNet(nn.Module):
    """Images (N, channels, s, s) and actions (N, A) to the change of one frame (N, 3, s, s), 0 at first."""

    def __init__(self, channels: int, width: int, action_dim: int):
        super().__init__()
        self.down1 = ConvolutionPair(channels, width, action_dim)
        self.down2 = ConvolutionPair(width, 2 * width, action_dim)
        self.middle = ConvolutionPair(2 * width, 4 * width, action_dim)
        self.up2 = ConvolutionPair(6 * width, 2 * width, action_dim)
        self.up1 = ConvolutionPair(3 * width, width, action_dim)
        self.out = nn.Conv2d(width, 3, 1)
        nn.init.zeros_(self.out.weight)
        self.out.bias = nn.Parameter(torch.zeros(3))

    def forward(self, x: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        full = self.down1(x, actions)  # (N, width, s, s)
        half = self.down2(F.max_pool2d(full, 2), actions)  # (N, 2 * width, s/2, s/2)
        quarter = self.middle(F.max_pool2d(half, 2), actions)  # (N, 4 * width, s/4, s/4)
        half = self.up2(torch.cat([F.interpolate(quarter, scale_factor=2.0), half], dim=1), actions)
        full = self.up1(torch.cat([F.interpolate(half, scale_factor=2.0), full], dim=1), actions)
        return self.out(full)


class FrameModel(nn.Module):
    """The pixel model of `config`. Calling it gives the training loss; planners use `get_cost`.

    Its latents are images in [0, 1]: `emb` (n, T, 3, s, s). A context shorter than the window repeats its first frame.
    """

    def __init__(self, config: FrameConfig) -> None:
        super().__init__()
        self.config = config
        self.unet = UNet(3 * config.window + config.action_dim, config.width, config.action_dim)

    def forward(self, batch: Batch, generator: torch.Generator | None = None) -> tuple[torch.Tensor, Metrics]:
        """loss = mean error^2 + l1_weight mean |error|, of the frames after the first one.

        `pixels` (B, T, 3, s, s) and `action` (B, T, A). ContractError for clips of one frame.
        """
        frames = self._frames(entry(batch, "pixels"))  # (B, T, 3, s, s)
        if frames.shape[1] < 2:
            raise ContractError(f"clips of {frames.shape[1]} frames: expected at least 2")
        context = windows(self._padded(frames[:, :-1]), self.config.window)  # (B * (T - 1), C, 3, s, s)
        actions = self._actions(entry(batch, "action")[:, :-1]).flatten(0, 1)  # (B * (T - 1), A)
        target = (frames[:, 1:] - frames[:, :-1]).flatten(0, 1)  # (B * (T - 1), 3, s, s)
        error = self._change(context, actions).float() - target.float()
        return weighted_sum({"mse": (1.0, error.square().mean()), "l1": (self.config.l1_weight, error.abs().mean())})

    def encode(self, info: Info) -> Info:
        """Return info with `emb` (n, T, 3, s, s), the images `pixels` in [0, 1]."""
        return {**info, "emb": self._frames(entry(info, "pixels"))}

    def rollout(self, info: Info, candidates: torch.Tensor, *, last_only: bool = False) -> Info:
        """Return info with the video `predicted_emb` (n, S, L + H, 3, s, s) for candidates (n, S, H, A).

        `last_only` returns the last frame alone, time axis 1.
        """
        emb = first_sample(info["emb"], 5) if "emb" in info else self._frames(first_sample(entry(info, "pixels"), 5))
        n, samples = candidates.shape[:2]
        actions = self._actions(candidates).flatten(0, 1)  # (N, H, A)
        length = 1 if last_only else emb.shape[1] + actions.shape[1]
        out = emb.new_empty(n * samples, length, *emb.shape[2:])  # (N, length, 3, s, s)
        env = torch.arange(n, device=emb.device).repeat_interleave(samples)
        for rows in torch.arange(len(out), device=emb.device).split(self.config.rollout_rows):
            out[rows] = self._imagine(emb[env[rows]], actions[rows], last_only)
        return {**info, "emb": emb, "predicted_emb": out.unflatten(0, (n, samples))}

    def decode(self, emb: torch.Tensor) -> torch.Tensor:
        """Images (..., 3, s, s) in [0, 1] of latents, which are these images."""
        return emb

    def prepare(self, info: Info) -> Info:
        """What `cost` needs of an info: `emb` (n, L, 3, s, s) and `goal_emb` (n, T, 3, s, s)."""
        observed, goal = (self._frames(first_sample(entry(info, name), 5)) for name in ("pixels", "goal"))
        return {"emb": observed, "goal_emb": goal}

    def cost(self, context: Info, candidates: torch.Tensor) -> torch.Tensor:
        """Mean squared distance (n, S) of the last frame of candidates (n, S, H, A) from the goal."""
        end = self.rollout(context, candidates, last_only=True)["predicted_emb"][:, :, -1]  # (n, S, 3, s, s)
        return (end - context["goal_emb"][:, -1:]).float().square().flatten(2).mean(dim=2)

    def get_cost(self, info: Info, candidates: torch.Tensor) -> torch.Tensor:
        """`cost` (n, S) of candidates (n, S, H, A) for the images `pixels` and `goal` (n, T, 3, s, s)."""
        return self.cost(self.prepare(info), candidates)

    def _imagine(self, frames: torch.Tensor, actions: torch.Tensor, last_only: bool) -> torch.Tensor:
        """Continue a video (N, L, 3, s, s) by actions (N, H, A), or return the last frame (N, 1, 3, s, s)."""
        window, length = self.config.window, frames.shape[1]
        video = torch.cat([self._padded(frames), frames.new_empty(len(frames), actions.shape[1], *frames.shape[2:])], 1)
        for t, action in enumerate(actions.unbind(1), start=window + length - 1):
            change = self._change(video[:, t - window : t], action)  # (N, 3, s, s)
            video[:, t] = (video[:, t - 1] + change).clamp(0, 1)
        return video[:, -1:] if last_only else video[:, window - 1 :]

    def _change(self, context: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        """What is added to the last of frames (N, C, 3, s, s), (N, 3, s, s), by actions (N, A), a plane for each."""
        planes = actions[:, :, None, None].expand(-1, -1, *context.shape[-2:])  # (N, A, s, s)
        return self.unet(torch.cat([context.flatten(1, 2), planes], dim=1), actions)

    def _padded(self, frames: torch.Tensor) -> torch.Tensor:
        """frames (N, T, ...) with the first one repeated in front, (N, window - 1 + T, ...)."""
        return torch.cat([frames[:, :1]] * (self.config.window - 1) + [frames], dim=1)

    def _actions(self, actions: torch.Tensor) -> torch.Tensor:
        return action_blocks(actions, self.config.action_dim, self.unet.out.weight)

    def _frames(self, pixels: torch.Tensor) -> torch.Tensor:
        """Images in [0, 1]; uint8 ones are scaled."""
        check_images(pixels, self.config.image_size)
        scale = 255 if pixels.dtype == torch.uint8 else 1
        return pixels.to(self.unet.out.weight) / scale
