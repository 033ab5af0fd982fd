"""A small latent dynamics model that counts what it encodes."""

import torch
from torch import nn


class ToyDynamics(nn.Module):
    """Latent of width 6 from (n, T, C, h, w) uint8 pixels; each action shifts it. Latents broadcast over candidates."""

    def __init__(self, action_size=2):
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Linear(3 * 4 * 4, 6)
        self.step = nn.Linear(6 + action_size, 6)
        self.encoded = []

    def encode(self, info):
        assert "action" not in info
        self.encoded.append(tuple(info["pixels"].shape))
        return {**info, "emb": self.encoder(info["pixels"].flatten(2).float() / 255)}

    def rollout(self, info, candidates):
        z = info["emb"][:, None].expand(-1, candidates.shape[1], -1, -1)  # (n, S, L, D)
        latents = [*z.unbind(dim=2)]
        for action in candidates.unbind(dim=2):
            latents.append(torch.tanh(self.step(torch.cat([latents[-1], action], dim=-1))))
        return {**info, "predicted_emb": torch.stack(latents, dim=2)}


class ActingDynamics(ToyDynamics):
    def get_action(self, info, horizon=1, prefix_actions=None):
        return torch.zeros(len(info["pixels"]), horizon, 2)
