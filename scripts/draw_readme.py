"""Draw docs/img/overview.png: some environments under varied factors, and a planner at work.

.venv/bin/python scripts/draw_readme.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

import stable_worldmodel.envs  # noqa: F401  (registers the ids)
from stable_worldmodel.planning import CEMSolver, GoalMSE, ShootingCostEvaluator
from stable_worldmodel.planning.playground import TwoRoomDynamics
from stable_worldmodel.policy import PlanConfig
from stable_worldmodel.solver.callbacks import Callback

TARGET = Path(__file__).parent.parent / "docs" / "img" / "overview.png"
TILE, LABEL, GAP, SCALE = 176, 20, 8, 2  # px; tiles are drawn SCALE times as large
ROOM = 224  # px, in which TwoRoom counts

# Label → id, arguments of the constructor, reset options, and one action that is taken some times.
ENVS: dict[str, tuple[str, dict[str, Any], dict[str, Any], Any, int]] = {
    "PushT": ("swm/PushT-v1", {}, {"variation": []}, (0.3, 0.2), 3),
    "PushT, varied": ("swm/PushT-v1", {}, {"variation": ["all"]}, (0.3, 0.2), 3),
    "OGBench Cube": ("swm/OGBCube-v0", {"env_type": "double"}, {"variation": []}, (0, 0.5, -1, 0, 0), 3),
    "Fetch": ("swm/FetchPickAndPlace-v3", {}, {"variation": []}, (0.3, 0.3, -0.2, 1), 3),
    "DM Control Cheetah": ("swm/CheetahDMControl-v0", {}, {"variation": []}, (0.5, -0.5, 0.5, -0.5, 0.5, -0.5), 12),
    "Cheetah, varied": ("swm/CheetahDMControl-v0", {}, {"variation": ["all"]}, (0.5, -0.5, 0.5, -0.5, 0.5, -0.5), 12),
}
ITERATIONS = (0, 4, 12, 39)  # of the planner, that are shown
PLAN = PlanConfig(horizon=9, receding_horizon=9, action_block=5)
START, GOAL = (40.0, 185.0), (185.0, 160.0)  # px, of different rooms
FAINT, STRONG = (31, 95, 168, 60), (216, 67, 21, 255)


class Candidates(Callback):
    """All candidates of every iteration."""

    def compute(self, *, candidates: torch.Tensor, topk_inds: torch.Tensor, **_: Any) -> torch.Tensor:
        return candidates.take_along_dim(topk_inds[..., None, None], dim=1)


def main() -> None:
    tiles = [(label, environment(*spec)) for label, spec in ENVS.items()] + plan()
    canvas = compose(tiles, columns=6).quantize(256, dither=Image.Dither.NONE)
    TARGET.parent.mkdir(exist_ok=True)
    canvas.save(TARGET, optimize=True)


def environment(id: str, kwargs: dict[str, Any], options: dict[str, Any], action: Any, steps: int) -> Image.Image:
    """A picture after some steps."""
    env: Any = gym.make(id, render_mode="rgb_array", disable_env_checker=True, **kwargs).unwrapped
    env.render_shape = (SCALE * TILE, SCALE * TILE)
    env.reset(seed=5, options=options)
    for _ in range(steps):
        env.step(np.array(action, np.float32))
    picture = Image.fromarray(env.render())
    env.close()
    return picture


def plan() -> list[tuple[str, Image.Image]]:
    """TwoRoom: start and goal, elites of the planner at some iterations, and what came of the plan."""
    env: Any = gym.make("swm/TwoRoom-v1", render_mode="rgb_array", disable_env_checker=True).unwrapped
    env.render_shape = (SCALE * TILE, SCALE * TILE)
    values = {"door.position": (112, 112, 112), "rendering.render_target": 1}
    options = {"variation": [], "variation_values": values, "state": START, "target_state": GOAL}
    env.reset(seed=0, options=options)
    start = Image.fromarray(env.render())
    dynamics = TwoRoomDynamics(env.layout(), action_block=PLAN.action_block)
    elites = Candidates(reduction="none", name="elites")
    cost = ShootingCostEvaluator(dynamics, GoalMSE())
    solver = CEMSolver(cost=cost, num_samples=1000, n_steps=ITERATIONS[-1] + 1, topk=30, seed=1, callbacks=[elites])
    solver.configure(action_space=gym.spaces.Box(-1, 1, (1, 2)), n_envs=1, config=PLAN)
    info = {"state": torch.tensor([[START]]), "goal_state": torch.tensor([[GOAL]])}
    result = solver.solve(info)
    tiles = [("TwoRoom: start and goal", start)]
    for i in ITERATIONS:
        paths = imagined(env.layout(), info, torch.tensor(elites.history[0][i]))
        tiles.append((f"planning, iteration {i + 1}", drawn(start, paths, FAINT, width=1)))
    seen = [np.array(START)]
    for action in result["actions"][0].reshape(-1, 2).numpy():
        env.step(action.astype(np.float32))
        seen.append(env._info()["state"])
    tiles.append(("executed", drawn(Image.fromarray(env.render()), np.array([seen]), STRONG, width=3)))
    return tiles


def imagined(layout: Any, info: dict[str, torch.Tensor], candidates: torch.Tensor) -> np.ndarray:
    """Where candidates (1, S, H, A) lead: xy in px (S, 1 + H * K, 2), every env step of them."""
    steps = candidates.unflatten(-1, (PLAN.action_block, 2)).flatten(2, 3)  # (1, S, H * K, 2)
    return TwoRoomDynamics(layout).rollout(info, steps)["predicted_emb"][0].numpy()


def drawn(picture: Image.Image, paths: np.ndarray, color: tuple[int, ...], width: int) -> Image.Image:
    """Paths (S, T, 2) in px of the room, over a picture."""
    result = picture.convert("RGBA")
    for path in paths * (picture.width / ROOM):
        layer = Image.new("RGBA", picture.size, (0, 0, 0, 0))  # of its own, so that crossing lines add up
        ImageDraw.Draw(layer).line([tuple(xy) for xy in path], fill=color, width=SCALE * width, joint="curve")
        result = Image.alpha_composite(result, layer)
    return result.convert("RGB")


def compose(tiles: list[tuple[str, Image.Image]], columns: int) -> Image.Image:
    """Tiles in rows, each with its label below."""
    rows = -(-len(tiles) // columns)
    height, width = TILE + LABEL + GAP, TILE + GAP
    canvas = Image.new("RGB", (columns * width + GAP, rows * height + GAP), "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(13)
    for i, (label, picture) in enumerate(tiles):
        x, y = GAP + i % columns * width, GAP + i // columns * height
        canvas.paste(picture.resize((TILE, TILE), Image.Resampling.BOX), (x, y))
        draw.rectangle((x - 1, y - 1, x + TILE, y + TILE), outline=(190, 190, 190))
        draw.text((x + TILE / 2, y + TILE + 4), label, fill="black", font=font, anchor="ma")
    return canvas


if __name__ == "__main__":
    main()
