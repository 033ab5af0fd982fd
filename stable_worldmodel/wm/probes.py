"""Probes: small networks that read a quantity off frozen embeddings, to find out what these know.

    probe = fit_probe(train_emb, train_position, hidden=256)
    report = evaluate_probe(probe, test_emb, test_position)   # {"mse": ..., "r": ...}

Split by episode, so that neighbouring frames do not lie on both sides.

Shapes: N samples, D width of an embedding, d width of the quantity.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from stable_worldmodel.errors import ContractError, NotFoundError, require

_ATTRIBUTE = "_probes"
PREFIX = f"{_ATTRIBUTE}."  # of their tensors in the state dict of a model


class Probe(nn.Module):
    """A linear map, or a perceptron with one hidden layer, between standardised embeddings and targets."""

    in_mean: torch.Tensor
    in_std: torch.Tensor
    out_mean: torch.Tensor
    out_std: torch.Tensor

    def __init__(self, in_dim: int, out_dim: int, hidden: int = 0) -> None:
        super().__init__()
        self.sizes = [in_dim, out_dim, hidden]
        self.network: nn.Module = nn.Linear(in_dim, out_dim)
        if hidden:
            self.network = nn.Sequential(nn.Linear(in_dim, hidden), nn.GELU(), nn.Linear(hidden, out_dim))
        for name, width in (("in", in_dim), ("out", out_dim)):
            self.register_buffer(f"{name}_mean", torch.zeros(width))
            self.register_buffer(f"{name}_std", torch.ones(width))

    def forward(self, emb: torch.Tensor) -> torch.Tensor:
        """Predictions (..., d) for embeddings (..., D)."""
        z = (emb.float() - self.in_mean) / self.in_std
        return self.network(z) * self.out_std + self.out_mean

    def standardise(self, emb: torch.Tensor, target: torch.Tensor) -> None:
        """Take means and deviations from samples (N, D) and (N, d)."""
        for name, x in (("in", emb), ("out", target)):
            getattr(self, f"{name}_mean").copy_(x.mean(dim=0))
            getattr(self, f"{name}_std").copy_(x.std(dim=0).clamp(min=1e-6))


def fit_probe(
    emb: torch.Tensor,
    target: torch.Tensor,
    *,
    hidden: int = 0,
    steps: int = 500,
    batch_size: int = 1024,
    learning_rate: float = 1e-3,
    weight_decay: float = 1e-4,
    seed: int = 0,
) -> Probe:
    """A probe fitted to embeddings (N, D) and targets (N, d): least squares if `hidden` is 0, else AdamW."""
    if emb.ndim != 2 or target.ndim != 2 or len(emb) != len(target) or len(emb) < 2:
        raise ContractError(f"{tuple(emb.shape)} and {tuple(target.shape)}: expected (N, D) and (N, d) with N >= 2")
    emb, target = emb.detach().float(), target.detach().float()
    generator = torch.Generator(emb.device).manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        probe = Probe(emb.shape[1], target.shape[1], hidden).to(emb.device)
    probe.standardise(emb, target)
    inputs, outputs = (emb - probe.in_mean) / probe.in_std, (target - probe.out_mean) / probe.out_std
    if not hidden:
        _least_squares(probe.network, inputs, outputs)
        return probe.eval()
    optimizer = torch.optim.AdamW(probe.network.parameters(), learning_rate, weight_decay=weight_decay)
    for _ in range(steps):
        rows = torch.randint(len(emb), (min(batch_size, len(emb)),), generator=generator, device=emb.device)
        loss = (probe.network(inputs[rows]) - outputs[rows]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return probe.eval()


@torch.no_grad()
def _least_squares(layer: nn.Module, x: torch.Tensor, y: torch.Tensor) -> None:
    """Set a linear layer to the ridge solution; the ridge only keeps redundant inputs apart."""
    assert isinstance(layer, nn.Linear)
    x = torch.cat([x, x.new_ones(len(x), 1)], dim=1).double()  # (N, D + 1)
    gram = x.mT @ x + 1e-6 * len(x) * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    weights = torch.linalg.solve(gram, x.mT @ y.double()).float()  # (D + 1, d)
    layer.weight.copy_(weights[:-1].mT)
    layer.bias.copy_(weights[-1])


@torch.no_grad()
def evaluate_probe(probe: nn.Module, emb: torch.Tensor, target: torch.Tensor) -> dict[str, float]:
    """`mse`, of targets standardised by these samples, and Pearson's `r`, each the mean over the d quantities."""
    predicted, target = probe(emb).float(), target.float()
    std = target.std(dim=0).clamp(min=1e-6)
    mse = ((predicted - target) / std).square().mean()
    a, b = predicted - predicted.mean(dim=0), target - target.mean(dim=0)
    r = (a * b).sum(dim=0) / (a.norm(dim=0) * b.norm(dim=0)).clamp(min=1e-12)
    return {"mse": mse.item(), "r": r.mean().item()}


def attach_probe(model: nn.Module, key: str, module: nn.Module) -> None:
    """Keep a probe with a model under a name; it replaces one of that name. ContractError for what is no module."""
    if not isinstance(module, nn.Module):
        raise ContractError(f"probe {key!r} is a {type(module).__name__}: expected a torch module")
    if not hasattr(model, _ATTRIBUTE):
        model.add_module(_ATTRIBUTE, nn.ModuleDict())
    getattr(model, _ATTRIBUTE)[key] = module


def get_probe(model: nn.Module, key: str) -> nn.Module | None:
    """The probe attached under a name, or None."""
    probes = getattr(model, _ATTRIBUTE, None)
    return probes[key] if probes is not None and key in probes else None


def probe_sizes(model: nn.Module) -> dict[str, list[int]]:
    """[in_dim, out_dim, hidden] of each attached `Probe`: what it takes to attach equal ones."""
    return {key: probe.sizes for key, probe in getattr(model, _ATTRIBUTE, {}).items() if isinstance(probe, Probe)}


def save_probe(model: nn.Module, key: str, path: str | Path) -> Path:
    """Write the weights of an attached probe as safetensors."""
    probe = _attached(model, key)
    require("safetensors")
    from safetensors.torch import save_file

    save_file({name: tensor.contiguous() for name, tensor in probe.state_dict().items()}, path)
    return Path(path)


def load_probe(model: nn.Module, key: str, path: str | Path) -> nn.Module:
    """Load weights into the probe attached under a name: safetensors, or a state dict that `torch.save` wrote.

    Raises ContractError if there is no such probe or the file holds something else. Nothing is unpickled.
    """
    probe, path = _attached(model, key), Path(path)
    if not path.is_file():
        raise NotFoundError(f"no probe weights {path}")
    require("safetensors")
    from safetensors.torch import load_file

    try:
        weights = load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)
        probe.load_state_dict(weights)
    except Exception as error:
        raise ContractError(f"{path} does not hold the weights of probe {key!r}: {error}") from error
    return probe


def _attached(model: nn.Module, key: str) -> nn.Module:
    probe = get_probe(model, key)
    if probe is None:
        raise ContractError(f"no probe {key!r} on this {type(model).__name__}: call attach_probe first")
    return probe
