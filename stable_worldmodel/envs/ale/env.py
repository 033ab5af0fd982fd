"""`swm/ALE-v5`: an Atari game with factors of variation, restored from recorded rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from PIL import Image

from stable_worldmodel import spaces
from stable_worldmodel.envs import ale
from stable_worldmodel.envs.env2d import column
from stable_worldmodel.envs.resizable import Resizable
from stable_worldmodel.envs.variation import FactorSpace, recorded_factors
from stable_worldmodel.errors import ContractError

_PRIME = 24  # frames after which an action is surely the one that is held, whatever sticks: 0.25**24 = 4e-15
_LENGTH = 4  # bytes in front of an emulator state that say how long it is


class ALEEnv(Resizable, gym.Env):
    """An Atari game of the package `ale_py`, with the rules of its ids `ALE/<Game>-v5`.

    Observation, action, reward, termination and truncation are the package's: with the same seed and no variation an
    episode is the one of `ALE/<Game>-v5` to the last bit. Nothing is varied unless asked for.

    Info: `env_name`; `lives`, `episode_frame_number`, `frame_number` as the package has them; `state`, the console's
    memory, uint8 (128,); `score`, the rewards so far; `is_success`. Where `restorable`, also `emulator`, uint8 (15 to
    17 thousand), and `held_action`: a row with both goes on as it was recorded. What the emulator does not tell is the
    action that a sticky controller still holds; the last one is assumed, which is wrong once in 256 steps at the
    default stickiness.

    Reset options: `variation`, `variation_values`; `emulator` and `held_action` as recorded, `score`.

    Args:
        game: name as in the package, such as "breakout" or "ms_pacman".
        obs_type: "rgb" (210, 160, 3), "grayscale" (210, 160) or "ram" (128,).
        frameskip: frames per step.
        full_action_space: all 18 actions instead of those that the game knows.
        max_num_frames_per_episode: frames after which an episode is truncated.
        target_score: an episode is a success from this score on; None: no step is.
        restorable: whether info holds what restores a row.
        render_mode: "rgb_array", or None for an env that is never rendered.
        init_value: mapping factor name -> default, for the life of the env.

    Attributes:
        render_shape: (H, W) of `render()`; may be set at any time.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 15}  # noqa: RUF012

    def __init__(
        self,
        game: str = "breakout",
        obs_type: str = "rgb",
        frameskip: int = 4,
        full_action_space: bool = False,
        max_num_frames_per_episode: int | None = 108_000,
        target_score: float | None = None,
        restorable: bool = True,
        render_mode: str | None = None,
        init_value: Mapping[str, Any] | None = None,
    ):
        if render_mode not in (None, "rgb_array"):
            raise ContractError(f"render_mode={render_mode!r}: expected 'rgb_array' or None")
        if not isinstance(frameskip, int) or frameskip < 1:
            raise ContractError(f"frameskip={frameskip!r}: expected an integer >= 1")
        ale_py = ale.load()
        known = ale_py.roms.get_all_rom_ids()
        if game not in known:
            raise ContractError(f"game={game!r}: expected one of {', '.join(sorted(known))}")
        self.render_mode, self.game, self.target_score, self.restorable = render_mode, game, target_score, restorable
        self._frameskip = frameskip
        self._arguments = {
            "game": game,
            "obs_type": obs_type,
            "frameskip": frameskip,
            "full_action_space": full_action_space,
            "max_num_frames_per_episode": max_num_frames_per_episode,
        }
        self._atari = self._build()
        self._shape: tuple[int, int] = self._atari.ale.getScreenDims()
        self.action_space, self.observation_space = self._atari.action_space, self._atari.observation_space
        self._choices = {
            "mode": list(self._atari.ale.getAvailableModes()),
            "difficulty": list(self._atari.ale.getAvailableDifficulties()),
        }
        self.variation_space = self._factors()
        if init_value:
            self.variation_space.set_init_value(init_value)
        self._sticky: float | None = None  # of the loaded game
        self._capacity = (len(self._snapshot()) // 1024 + 2) * 1024
        self._started = False

    def _build(self) -> Any:
        return ale.load().AtariEnv(**self._arguments)

    def _factors(self) -> FactorSpace:
        """What the game lets one choose; a choice of one is none."""
        state = self._atari.ale.cloneState()
        current = {"mode": state.getCurrentMode(), "difficulty": state.getDifficulty()}
        game = {
            name: spaces.Discrete(len(values), init_value=values.index(current[name]))
            for name, values in self._choices.items()
            if len(values) > 1
        }
        sticky = spaces.Box(0.0, 0.9, (1,), np.float64, init_value=[0.25])
        return FactorSpace({**({"game": game} if game else {}), "controller": {"stickiness": sticky}})

    # ------------------------------------------------------------------ episode
    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode; the same seed and options give the same one. See the class for `options`."""
        super().reset(seed=seed)
        options = options or {}
        self.variation_space.draw_factors(seed, options, ())
        self._load(seed)
        self._atari.ale.reset_game()
        self._started, self._held, self._score = True, -1, 0.0
        self._emulator = self._snapshot()
        if options.get("emulator") is not None:
            held = np.asarray(options.get("held_action", -1)).item()
            self._restore(_unpacked(options["emulator"]), int(held))
            self._score = float(np.asarray(options.get("score", 0.0)).item())
        return self._atari._get_obs(), self._info()

    def _load(self, seed: int | None) -> None:
        """Load the game anew where its seed or its stickiness is another; set mode and difficulty."""
        atari, sticky = self._atari, float(self.variation_space.value_of("controller.stickiness")[0])
        if seed is not None:
            atari.seed_game(seed)
        elif sticky != self._sticky:
            atari.ale.setInt("random_seed", int(self.np_random.integers(2**31)))
        if seed is not None or sticky != self._sticky:
            atari.ale.setFloat("repeat_action_probability", sticky)
            atari.load_game()
            self._sticky = sticky
        for name, write in (("mode", atari.ale.setMode), ("difficulty", atari.ale.setDifficulty)):
            if len(self._choices[name]) > 1:
                write(self._choices[name][int(self.variation_space.value_of(f"game.{name}"))])

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Hold an action for `frameskip` frames. Raises ContractError unless it is one of the action space."""
        self._require_episode()
        if not self.action_space.contains(action):
            raise ContractError(f"action={action!r}: expected an integer 0..{len(self._atari._action_set) - 1}")
        self._held = int(action)
        machine, pressed = self._atari.ale, self._atari._action_set[self._held]
        reward = sum(machine.act(pressed) for _ in range(self._frameskip - 1))
        if self.restorable:
            self._emulator = self._snapshot()  # a restored machine has to draw this frame again to show it
        reward = float(reward + machine.act(pressed))
        self._score += reward
        terminated, truncated = machine.game_over(with_truncation=False), machine.game_truncated()
        return self._atari._get_obs(), reward, terminated, truncated, self._info()

    def _info(self) -> dict[str, Any]:
        info: dict[str, Any] = {
            "env_name": f"ALE/{self.game}",
            **self._atari._get_info(),
            "state": self._atari.ale.getRAM(),
            "score": self._score,
            "is_success": self.target_score is not None and self._score >= self.target_score,
        }
        if self.restorable:
            info |= {"emulator": _packed(self._emulator, self._capacity), "held_action": self._held}
        return info

    def _require_episode(self) -> None:
        if not self._started:
            raise gym.error.ResetNeeded("ALEEnv has no episode yet; call reset() first")

    # ------------------------------------------------------------------ pictures
    def render(self) -> np.ndarray | None:
        """The screen, scaled to `render_shape`; a new uint8 array (H, W, 3). None without a render mode."""
        self._require_episode()
        if self.render_mode is None:
            return None
        screen = self._atari.ale.getScreenRGB()
        if screen.shape[:2] == self._shape:
            return screen.copy()
        height, width = self._shape
        return np.array(Image.fromarray(screen).resize((width, height), Image.Resampling.BOX))

    # ------------------------------------------------------------------ restoring
    def reset_options_from_dataset(self, init_row: Mapping[str, Any], goal_row: Mapping[str, Any]) -> dict[str, Any]:
        """Reset options that restore a recorded row and every recorded `variation.*` factor.

        Args:
            init_row: column -> value; `emulator` and `held_action`, and `score` if it was recorded.
            goal_row: not used; games have no goal.

        Raises:
            MissingKeyError: `emulator` or `held_action` is missing.
        """
        options = {
            "variation": [],
            "variation_values": recorded_factors(init_row),
            "emulator": column(init_row, "emulator").reshape(-1),
            "held_action": column(init_row, "held_action"),
        }
        return options | ({"score": init_row["score"]} if "score" in init_row else {})

    def _snapshot(self) -> bytes:
        return self._atari.ale.cloneState(include_rng=True).serialize()

    def _restore(self, emulator: bytes, held: int) -> None:
        """Bring back a machine at its last frame but one, and draw the last; -1: nothing was played yet."""
        machine = self._atari.ale
        state = ale.load().ALEState(emulator)
        if held >= 0:
            pressed = self._atari._action_set[held]
            for _ in range(_PRIME):
                machine.act(pressed)
        machine.restoreState(state)
        if held >= 0:
            machine.act(pressed)
        self._emulator, self._held = emulator, held

    # ------------------------------------------------------------------ copies
    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_atari": None, "_emulator": self._emulator if self._started else None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._atari = self._build()
        self._sticky = None
        if self._started:
            self._load(None)
            self._atari.ale.reset_game()
            self._restore(self._emulator, self._held)


def _packed(emulator: bytes, capacity: int) -> np.ndarray:
    """States of varying length as rows of one shape, uint8 (capacity,)."""
    if len(emulator) + _LENGTH > capacity:
        raise ContractError(f"an emulator state of {len(emulator)} bytes does not fit into {capacity}")
    row = np.zeros(capacity, np.uint8)
    row[:_LENGTH] = np.frombuffer(len(emulator).to_bytes(_LENGTH, "little"), np.uint8)
    row[_LENGTH : _LENGTH + len(emulator)] = np.frombuffer(emulator, np.uint8)
    return row


def _unpacked(row: Any) -> bytes:
    content = np.asarray(row, np.uint8).tobytes()
    length = int.from_bytes(content[:_LENGTH], "little")
    if not 0 < length <= len(content) - _LENGTH:
        raise ContractError(
            f"emulator: expected what info['emulator'] was, found {len(content)} bytes of something else"
        )
    return content[_LENGTH : _LENGTH + length]
