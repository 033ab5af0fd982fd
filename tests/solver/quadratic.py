"""Analytic costs whose best plan is known."""

import torch


class TargetCost:
    """Squared distance of a plan to `info["target"]` (n, H, A)."""

    def __init__(self):
        self.seen = []

    def get_cost(self, info, candidates):
        self.seen.append(candidates.clone())
        return (candidates - info["target"][:, None]).square().sum(dim=(2, 3))


class IntegratorCost:
    """Distance of a point that moves by its actions from `info["state"]` (n, 1, A) to the origin, plus effort."""

    def get_cost(self, info, candidates):
        end = info["state"] + candidates.sum(dim=2)  # (n, S, A)
        return end.square().sum(dim=2) + 0.1 * candidates.square().sum(dim=(2, 3))


class LinearModelCost(torch.nn.Module):
    """A small network as cost; encodes its observation in `prepare`."""

    def __init__(self, dtype=torch.float32):
        super().__init__()
        torch.manual_seed(0)
        self.encoder = torch.nn.Linear(4, 16, dtype=dtype)
        self.step = torch.nn.Linear(18, 16, dtype=dtype)
        self.prepared = []

    def prepare(self, info):
        self.prepared.append(len(info["state"]))
        return {**info, "emb": self.encoder(info["state"][:, -1])}

    def get_cost(self, info, candidates):
        return self.cost(self.prepare(info), candidates)

    def cost(self, info, candidates):
        z = info["emb"][:, None].expand(-1, candidates.shape[1], -1)
        for action in candidates.unbind(dim=2):
            z = torch.tanh(self.step(torch.cat([z, action], dim=-1)))
        return z.square().sum(dim=-1)
