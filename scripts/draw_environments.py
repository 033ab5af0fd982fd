"""Draw the pictures of docs/environments: per environment one sheet, by default and under each factor of variation.

    .venv/bin/python scripts/draw_environments.py [words of ids]

All tiles of a sheet start from the same seed and take the same actions, so a factor of the dynamics shows in where
things are. Of several values drawn for a factor, the one that changes the picture most is shown; "(same)":
none did.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from PIL import Image, ImageDraw, ImageFont

import stable_worldmodel.envs  # noqa: F401  (registers the ids)
from stable_worldmodel.errors import ContractError
from stable_worldmodel.utils import flatten_dict

FOLDER = Path(__file__).parent.parent / "docs" / "environments" / "img"
TILE, LABEL, GAP, COLUMNS = 128, 16, 6, 6  # px, and tiles per row
SCALE = 2  # of the picture that a tile is shrunk from, for the text beside it to stay sharp
DRAWS = 12  # values tried per factor
MOST_BYTES = 150_000

Tile = tuple[str, np.ndarray]  # label, picture


@dataclass(frozen=True)
class Sheet:
    """What one environment's pictures show.

    Attributes:
        actions: what is done before the picture is taken.
        kwargs: of the constructor.
        values: factors that differ from their defaults in all tiles, so that others show.
        options: other reset options.
        shape: (H, W) of a tile.
    """

    actions: list[Any] = field(default_factory=list)
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    shape: tuple[int, int] = (TILE, TILE)


def steady(*action: float, steps: int) -> list[np.ndarray]:
    """The same action again and again."""
    return [np.array(action, np.float32)] * steps


_WIDE = (TILE * 2 // 3, TILE)
SHEETS: dict[str, Sheet] = {
    "swm/PushT-v1": Sheet(
        steady(-0.5, 0.1, steps=4),
        values={"agent.start_position": (330, 250), "block.start_position": (230, 230), "block.angle": 0.4},
        options={"goal_state": [300, 150, 180, 330, 2.0, 0, 0]},
    ),
    "swm/TwoRoom-v1": Sheet(
        steady(0.6, -0.9, steps=6), values={"door.position": (49, 120, 180), "rendering.render_target": 1}
    ),
    "swm/TwoRoom-v0": Sheet(
        steady(0.6, 0.5, steps=12),
        kwargs={"render_target": True},
        values={"target.position": (420, 420), "agent.position": (70, 80), "door.position": (200, 40, 400)},
    ),
    "swm/Piecewise-v0": Sheet(
        steady(0.5, -0.6, steps=8), values={"rendering.render_target": 1, "rendering.render_zones": 1}
    ),
    "swm/SimplePointMaze-v0": Sheet(steady(0.12, 0.05, steps=8)),
    "swm/VoidRun-v0": Sheet([1, 1, 2, 2, 2, 0, 0, 0, 3, 3], values={"board.size": 14, "agent.position": (7, 7)}),
    "swm/ImagePositioning-v1": Sheet(steady(*([0.05] * 11), steps=3), kwargs={"flat_actions": True}),
    "swm/SimpleNavigation-v0": Sheet([1, 2, 2]),
    "swm/CartPoleControl-v1": Sheet([1, 1, 0, 1, 1, 0], shape=_WIDE),
    "swm/MountainCarControl-v0": Sheet([2] * 10, options={"state": [-1.0, 0.05]}, shape=_WIDE),
    "swm/MountainCarContinuousControl-v0": Sheet(steady(1.0, steps=10), options={"state": [-1.0, 0.05]}, shape=_WIDE),
    "swm/AcrobotControl-v1": Sheet([2] * 8 + [0] * 8),
    "swm/PendulumControl-v1": Sheet(steady(2.0, steps=11), options={"state": [1.0, 0.0]}),
    "swm/OGBCube-v0": Sheet(steady(0, 0.5, -1, 0, 0, steps=3), {"env_type": "double"}, options={"task_id": 2}),
    "swm/OGBScene-v0": Sheet(steady(0, 0.5, -1, 0, 0, steps=3), options={"task_id": 2}),
    "swm/OGBMaze-v0": Sheet(steady(1, 0, steps=6), {"maze_type": "medium"}),
    "swm/FetchPickAndPlace-v3": Sheet(steady(0.3, 0.3, -0.2, 1, steps=3)),
    "swm/ALE-v5": Sheet([1, 2, 2, 2, 0, 3, 3, 3, 3, 0, 0, 0, 0, 2, 2, 2], shape=(TILE * 21 // 16, TILE)),
    # Those below need packages that do not go with the pinned ones; see their pages.
    "swm/CraftaxClassicPixels-v1": Sheet([1, 1, 4, 4, 2, 2, 3, 3, 5, 5] * 3, values={"mobs.zombie_chance": [0.3]}),
    "swm/PFRocketLanding-v0": Sheet(steady(0, 0, 0, 1, 1, 0.1, 0.1, steps=6), {"ceiling": 30.0}),
}


def main() -> None:
    gym.logger.min_level = gym.logger.ERROR  # a pole that falls under some factor may go on falling
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("words", nargs="*", help="only ids that contain one of these")
    words = parser.parse_args().words
    for id, sheet in SHEETS.items():
        if not words or any(word in id for word in words):
            path = FOLDER / f"{id.partition('/')[2]}.png"
            save(contact_sheet(id, sheet), path)
            logging.info("%s: %d kB", path.name, path.stat().st_size // 1000)


def contact_sheet(id: str, sheet: Sheet) -> Image.Image:
    """The default picture, the goal's, and one per factor, with labels."""
    env: Any = gym.make(id, render_mode="rgb_array", disable_env_checker=True, **sheet.kwargs).unwrapped
    env.render_shape = tuple(SCALE * side for side in sheet.shape)
    plain, goal = picture(env, sheet, {})
    tiles = [("default", plain)]
    if goal is not None:
        tiles.append(("goal", goal))
    tiles += [under(env, sheet, name, plain, goal) for name in env.variation_space.names()]
    return compose(tiles, sheet.shape)


def picture(env: Any, sheet: Sheet, values: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray | None]:
    """What the env looks like after the sheet's actions, and its goal."""
    options = {"variation": [], "variation_values": {**sheet.values, **values}, **sheet.options}
    _, info = env.reset(seed=3, options=options)
    for action in sheet.actions:
        env.step(action)
    return env.render(), info.get("goal")


def under(env: Any, sheet: Sheet, name: str, plain: np.ndarray, goal: np.ndarray | None) -> Tile:
    """The picture with another value of one factor; the goal's, if only that one changes."""
    best, most = (f"{name} (same)", plain), 0.0
    kept = {key: value for key, value in sheet.values.items() if key != name}
    for seed in range(DRAWS):
        try:
            env.reset(seed=seed, options={"variation": [name], "variation_values": kept})
            shown, its_goal = picture(env, sheet, {name: flatten_dict(env.variation_space.value)[name]})
        except ContractError:  # this value does not fit the others
            continue
        change = difference(shown, plain)
        if change > most:
            best, most = (name, shown), change
        elif most == 0 and goal is not None and its_goal is not None and difference(its_goal, goal) > 0:
            best = (f"{name} (goal)", its_goal)
    return best


def difference(picture: np.ndarray, other: np.ndarray) -> float:
    """The mean distance of two pictures, in levels."""
    return float(np.abs(picture.astype(int) - other).mean())


def compose(tiles: list[Tile], shape: tuple[int, int]) -> Image.Image:
    """Tiles in rows, each with its label below."""
    rows = -(-len(tiles) // COLUMNS)
    height, width = shape[0] + LABEL + GAP, shape[1] + GAP
    canvas = Image.new("RGB", (COLUMNS * width + GAP, rows * height + GAP), "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(11)
    for i, (label, pixels) in enumerate(tiles):
        x, y = GAP + i % COLUMNS * width, GAP + i // COLUMNS * height
        tile = Image.fromarray(pixels).resize(shape[::-1], Image.Resampling.BOX)
        canvas.paste(tile, (x, y))
        draw.rectangle((x - 1, y - 1, x + shape[1], y + shape[0]), outline=(190, 190, 190))
        draw.text((x + shape[1] / 2, y + shape[0] + 3), label, fill="black", font=font, anchor="ma")
    return canvas


def save(sheet: Image.Image, path: Path) -> None:
    """Write a PNG, with fewer colours if it would be too large."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, optimize=True)
    if path.stat().st_size > MOST_BYTES:
        sheet.quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)


if __name__ == "__main__":
    main()
