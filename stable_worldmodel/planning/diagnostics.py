"""Looking at a plan: how the search went, what was imagined, and what came of it.

Figures need matplotlib (the extra `report`); they are returned, and written if a path is given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from stable_worldmodel.errors import ContractError, MissingKeyError, require
from stable_worldmodel.protocols import Info
from stable_worldmodel.solver.callbacks import (
    BestCostRecorder,
    Callback,
    EliteSpreadRecorder,
    MeanCostRecorder,
    VarNormRecorder,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def recorders() -> list[Callback]:
    """Callbacks for a sampling solver that `plot_search` can draw: costs, spread of the elites, deviation; per env."""
    kinds = (BestCostRecorder, MeanCostRecorder, EliteSpreadRecorder, VarNormRecorder)
    return [kind(reduction="none") for kind in kinds]


def per_env(history: Sequence[Sequence[Sequence[float]]]) -> np.ndarray:
    """A recorder's history with reduction 'none' as (n, iterations)."""
    return np.concatenate([np.array(chunk, np.float64).T for chunk in history])


def plot_search(result: Mapping[str, Any], path: str | Path | None = None) -> Figure:
    """Costs per iteration (left), spread of elites and deviation (right); thin per env, thick the mean.

    Args:
        result: of a solve with `recorders()` among its callbacks.
    """
    histories = result.get("callbacks") or {}
    panels = (
        ("cost", ("BestCostRecorder", "MeanCostRecorder")),
        ("distance", ("EliteSpreadRecorder", "VarNormRecorder")),
    )
    if not any(name in histories for _, names in panels for name in names):
        raise MissingKeyError(
            f"the result has no history to draw among {sorted(histories)}; pass callbacks=recorders()"
        )
    figure = _figure(len(panels))
    for axes, (label, names) in zip(figure.axes, panels, strict=True):
        for color, name in enumerate(name for name in names if name in histories):
            values = per_env(histories[name])
            axes.plot(values.T, color=f"C{color}", alpha=0.25, linewidth=0.8)
            axes.plot(values.mean(axis=0), color=f"C{color}", linewidth=2, label=name.removesuffix("Recorder"))
        axes.set(xlabel="iteration", ylabel=label)
        axes.locator_params(axis="x", integer=True)
        if axes.lines:
            axes.legend()
    return _written(figure, path)


@torch.inference_mode()
def imagine(cost: Any, info: Info, actions: torch.Tensor) -> torch.Tensor:
    """What a model predicts for one plan (n, H, A) per env: latents (n, L + H, ...), the context first.

    Args:
        cost: a ShootingCostEvaluator.
        info: what was planned for, as tensors on the model's device.
    """
    return cost.rollout(info, actions[:, None])["predicted_emb"][:, 0]


def plot_states(
    executed: np.ndarray,
    imagined: Mapping[int, np.ndarray],
    names: Sequence[str] | None = None,
    path: str | Path | None = None,
) -> Figure:
    """What happened against what each plan imagined, one panel per number of the state.

    Args:
        executed: (T, d), the state (or latent) at macro steps 0..T-1.
        imagined: time step at which it was planned -> (H + 1, d), starting with the state then.
        names: of the d numbers.
    """
    executed = np.asarray(executed)
    if executed.ndim != 2 or any(
        np.ndim(plan) != 2 or np.shape(plan)[1] != executed.shape[1] for plan in imagined.values()
    ):
        raise ContractError(
            f"executed {executed.shape}: expected (T, d), and plans (H + 1, d) of the same d, "
            f"found {[np.shape(plan) for plan in imagined.values()]}"
        )
    size = executed.shape[1]
    figure = _figure(size)
    for i, axes in enumerate(figure.axes):
        for start, plan in imagined.items():
            steps = start + np.arange(len(plan))
            axes.plot(steps, np.asarray(plan)[:, i], color="C1", alpha=0.6, linewidth=1)
        axes.plot(executed[:, i], color="C0", linewidth=2, label="executed; thin: imagined by each plan")
        axes.set(xlabel="macro step", title=names[i] if names else f"state {i}")
    figure.axes[0].legend(fontsize="small")
    return _written(figure, path)


@torch.inference_mode()
def imagined_frames(model: Any, latents: torch.Tensor) -> np.ndarray:
    """Images uint8 (n, T, h, w, 3) of latents (n, T, ...), for models that can `decode`."""
    if not callable(getattr(model, "decode", None)):
        raise ContractError(f"{type(model).__name__} has no decode(emb): only models with a decoder can be looked into")
    images = model.decode(latents)  # (n, T, 3, h, w) in [0, 1]
    if images.ndim != 5 or images.shape[2] != 3:
        raise ContractError(f"decode returned {tuple(images.shape)}: expected images (n, T, 3, h, w)")
    return (images.float().clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 1, 3, 4, 2).cpu().numpy()


def write_gif(frames: np.ndarray, path: str | Path, fps: float = 10.0) -> Path:
    """Write a video uint8 (T, h, w, 3), or several side by side (n, T, h, w, 3), as an animated GIF."""
    from PIL import Image

    frames = np.asarray(frames)
    if frames.dtype != np.uint8 or frames.ndim not in (4, 5) or frames.shape[-1] != 3:
        raise ContractError(f"frames {frames.dtype} {frames.shape}: expected uint8 (T, h, w, 3) or (n, T, h, w, 3)")
    rows = np.concatenate(frames, axis=2) if frames.ndim == 5 else frames
    first, *rest = (Image.fromarray(frame) for frame in rows)
    first.save(path, save_all=True, append_images=rest, duration=round(1000 / fps), loop=0)
    return Path(path)


def _figure(panels: int) -> Figure:
    require("matplotlib")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.5 * panels, 3.2), layout="constrained")  # no pyplot: nothing global is left behind
    figure.subplots(1, panels)
    return figure


def _written(figure: Figure, path: str | Path | None) -> Figure:
    if path is not None:
        figure.savefig(path)
    return figure
