"""World models without a network: exact dynamics as tensor code, to judge planners by.

Each is a `Dynamics`: `emb` is the state itself, `goal_emb` the goal's, and `rollout` moves all candidates at once. They
follow the envs of this library step by step, differentiable wherever the world is.

Shapes: n envs, S candidates, H macro steps of K env steps, a size of one env action, d size of a state.
"""

from __future__ import annotations

import torch

from stable_worldmodel.envs.simple_point_maze import geometry as maze_geometry
from stable_worldmodel.envs.two_room import geometry as room_geometry
from stable_worldmodel.errors import ContractError, MissingKeyError
from stable_worldmodel.protocols import Info


class AnalyticDynamics:
    """Base: a subclass defines `step`.

    Args:
        state_key: info entry (n, T, d) that holds the state; the goal is under `goal_<state_key>`.
        action_block: env steps K per macro step.
    """

    action_size = 2

    def __init__(self, state_key: str = "state", action_block: int = 1):
        if action_block < 1:
            raise ContractError(f"action_block={action_block}: expected >= 1")
        self.state_key = state_key
        self.action_block = action_block

    def step(self, state: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        """The states (..., d) after one env step with actions (..., a)."""
        raise NotImplementedError

    def encode(self, info: Info) -> Info:
        """Return info with `emb` (n, T, d)."""
        if self.state_key not in info:
            raise MissingKeyError(f"no {self.state_key!r} among {sorted(info)}")
        return {**info, "emb": self.embed(info[self.state_key])}

    def embed(self, state: torch.Tensor) -> torch.Tensor:
        """States as the env gives them, as this model keeps them."""
        return state.float() if not state.is_floating_point() else state

    def rollout(self, info: Info, candidates: torch.Tensor, *, last_only: bool = False) -> Info:
        """Return info with `predicted_emb` (n, S, L + H, d) for candidates (n, S, H, K * a); the context comes first.

        `last_only` returns the last state alone, (n, S, 1, d).
        """
        emb = info["emb"] if "emb" in info else self.encode(info)["emb"]
        n, samples, _, width = candidates.shape
        if width != self.action_block * self.action_size:
            raise ContractError(
                f"candidates of width {width}: expected action_block * action size = "
                f"{self.action_block} * {self.action_size}"
            )
        state = emb[:, -1:].expand(n, samples, -1)
        states = []
        for macro in candidates.unbind(dim=2):
            for action in macro.unflatten(-1, (self.action_block, self.action_size)).unbind(dim=2):
                state = self.step(state, action)
            states.append(state)
        if last_only:
            return {**info, "predicted_emb": state[:, :, None]}
        context = emb[:, None].expand(-1, samples, -1, -1)
        return {**info, "predicted_emb": torch.cat([context, torch.stack(states, dim=2)], dim=2)}


class DoubleIntegrator(AnalyticDynamics):
    """A point mass in `dimensions` directions: state (position, velocity), action the acceleration, exact in `dt`."""

    def __init__(self, dimensions: int = 2, dt: float = 0.1, state_key: str = "state", action_block: int = 1):
        super().__init__(state_key, action_block)
        self.action_size = dimensions
        self.dt = dt

    def step(self, state: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        position, velocity = state.chunk(2, dim=-1)
        position = position + self.dt * velocity + self.dt**2 / 2 * action
        return torch.cat([position, velocity + self.dt * action], dim=-1)


class PendulumDynamics(AnalyticDynamics):
    """Gymnasium's Pendulum-v1: state (cos, sin, angular velocity), action the torque, clipped to `max_torque`.

    Args:
        g, m, l, dt, max_torque, max_speed: those of the env.
    """

    action_size = 1

    def __init__(
        self,
        g: float = 10.0,
        m: float = 1.0,
        l: float = 1.0,  # noqa: E741
        dt: float = 0.05,
        max_torque: float = 2.0,
        max_speed: float = 8.0,
        state_key: str = "state",
        action_block: int = 1,
    ):
        super().__init__(state_key, action_block)
        self._gravity, self._gain = 3 * g / (2 * l), 3 / (m * l**2)
        self._dt, self._max_torque, self._max_speed = dt, max_torque, max_speed

    def embed(self, state: torch.Tensor) -> torch.Tensor:
        """(angle, velocity) becomes (cos, sin, velocity), which is taken as it is."""
        if state.shape[-1] == 3:
            return super().embed(state)
        angle, speed = super().embed(state).unbind(dim=-1)
        return torch.stack([angle.cos(), angle.sin(), speed], dim=-1)

    def step(self, state: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        cos, sin, speed = state.unbind(dim=-1)
        torque = action[..., 0].clamp(-self._max_torque, self._max_torque)
        speed = speed + (self._gravity * sin + self._gain * torque) * self._dt
        speed = speed.clamp(-self._max_speed, self._max_speed)
        turn = speed * self._dt
        # Turned by the addition theorem: no angle, hence no jump at pi.
        return torch.stack([cos * turn.cos() - sin * turn.sin(), sin * turn.cos() + cos * turn.sin(), speed], dim=-1)


class TwoRoomDynamics(AnalyticDynamics):
    """`swm/TwoRoom-v1` with the legacy collision rule: state xy in px, action in [-1, 1]^2.

    Args:
        layout: of the episode, `env.unwrapped.layout()`.
    """

    def __init__(self, layout: room_geometry.Layout, state_key: str = "state", action_block: int = 1):
        super().__init__(state_key, action_block)
        if layout.swept:
            raise ContractError("layout.swept: expected the legacy collision rule, TwoRoom(collision='legacy')")
        self._layout = layout

    def step(self, state: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        layout = self._layout
        low = room_geometry.BORDER_SIZE + layout.radius
        end = (state + layout.speed * action.clamp(-1.0, 1.0)).clamp(low, room_geometry.WORLD_SIZE - low)
        across, along = end[..., layout.across], end[..., 1 - layout.across]
        in_door = torch.zeros_like(along, dtype=torch.bool)
        for center, size in layout.doors:
            in_door |= (along - center).abs() <= size + room_geometry.DOOR_MARGIN
        wall, reach = room_geometry.WALL_CENTER, layout.reach
        low_side = state[..., layout.across] < wall
        hits = torch.where(low_side, across > wall - reach, across < wall + reach) & ~in_door
        rebound = reach + room_geometry.REBOUND
        across = torch.where(hits, torch.where(low_side, wall - rebound, wall + rebound).to(across), across)
        return torch.stack([across, along] if layout.axis == 1 else [along, across], dim=-1)


class PointMazeDynamics(AnalyticDynamics):
    """`swm/SimplePointMaze-v0`: state xy, action a displacement within 0.2 per component.

    Args:
        maze: of the episode, `env.unwrapped.layout()`.
    """

    limit = 0.2

    def __init__(self, maze: maze_geometry.Maze, state_key: str = "state", action_block: int = 1):
        super().__init__(state_key, action_block)
        self._maze = maze

    def step(self, state: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        aim = state + self._maze.speed * action.clamp(-self.limit, self.limit)
        end = aim.clamp(0.0, maze_geometry.WORLD_SIZE)
        touches = torch.zeros(end.shape[:-1], dtype=torch.bool, device=end.device)
        for x, y, width, height in self._maze.walls:
            low, high = end.new_tensor([x, y]), end.new_tensor([x + width, y + height])
            gap = end - torch.minimum(torch.maximum(end, low), high)
            touches |= gap.square().sum(dim=-1) <= self._maze.radius**2
        return torch.where(touches[..., None], state, end)
