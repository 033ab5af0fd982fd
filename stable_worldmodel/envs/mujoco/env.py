"""What every MuJoCo environment does the same way: pictures, factors, restoring a recorded row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np

from stable_worldmodel.envs.env2d import column
from stable_worldmodel.envs.mujoco.factors import Factor
from stable_worldmodel.envs.mujoco.renderer import Look
from stable_worldmodel.envs.mujoco.simulation import Simulation
from stable_worldmodel.envs.resizable import Resizable
from stable_worldmodel.envs.variation import is_covered, recorded_factors
from stable_worldmodel.errors import ContractError

State = tuple[np.ndarray, np.ndarray]  # qpos, qvel


class MujocoEnv(Resizable, gym.Env):
    """Mixin for an env around a `Simulation`, which a subclass builds by `_simulate(model, data, table)`.

    It may stand before another env class in the bases. What the subclass takes from here: `variation_space`,
    `render_shape`, `render`, `_draw_factors`, `_state_info`, `_state_of`, `reset_options_from_dataset`.

    Attributes:
        default_variations: what is sampled at a reset that does not say.
        camera: number or name of the camera of `render`.
        smooth: longest side of the pictures that "matched" multisamples.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 30}  # noqa: RUF012
    default_variations: Sequence[str] = ()
    smooth: ClassVar[int] = 0
    camera: int | str = 0
    _shape: tuple[int, int] = (224, 224)
    _simulation: Simulation

    def _simulate(
        self,
        model: Any,
        data: Any,
        table: Sequence[Factor],
        quality: str = "matched",
        init_value: Mapping[str, Any] | None = None,
        look: Look | None = None,
        digest: str | None = None,
    ) -> None:
        """Take a compiled model; the variation space is built from `table`. Otherwise see Simulation."""
        self._simulation = Simulation(model, data, table, quality, look, digest, self.smooth)
        self.variation_space = self._simulation.factors.space
        if init_value:
            self.variation_space.set_init_value(init_value)

    # ------------------------------------------------------------------ pictures
    @property
    def quality(self) -> str:
        """Level of detail of the pictures: "full", "matched" or "fast"."""
        return self._simulation.quality

    def render(
        self,
        width: int | None = None,
        height: int | None = None,
        camera_id: int | str | None = None,
        out: np.ndarray | None = None,
    ) -> np.ndarray | None:
        """The current picture, uint8 (H, W, 3); None without a render mode.

        Args:
            width, height: in place of those of `render_shape`.
            camera_id: number or name, in place of the env's own camera.
            out: an array to draw into, in place of a new one.
        """
        if self.render_mode is None:
            return None
        shape = (height or self._shape[0], width or self._shape[1]) if out is None else out.shape[:2]
        return self._simulation.picture(shape, self.camera if camera_id is None else camera_id, out=out)

    def close(self) -> None:
        """Give GL resources back; the env may go on."""
        self._simulation.close()
        super().close()

    # ------------------------------------------------------------------ factors
    def _draw_factors(self, seed: int | None, options: Mapping[str, Any]) -> None:
        """Draw the factors of an episode and apply those that a task does not override."""
        self.variation_space.draw_factors(seed, options, self.default_variations)
        varied = options.get("variation")
        self._named = [
            *(self.default_variations if varied is None else varied),
            *(options.get("variation_values") or {}),
        ]
        self._simulation.restore()

    def _value(self, name: str) -> Any:
        """The value of a factor."""
        return self.variation_space.factor(name).value

    def _asked(self, name: str) -> Any:
        """The value of a factor that this episode's reset names, else None."""
        covered = "all" in self._named or is_covered(name, self._named)
        return self._value(name) if covered else None

    # ------------------------------------------------------------------ state
    def _state_info(self) -> dict[str, Any]:
        """What a row needs to go on from there bit for bit, and the level of its pictures."""
        data = self._simulation.data
        info = {
            "qpos": data.qpos.copy(),
            "qvel": data.qvel.copy(),
            "state": np.concatenate([data.qpos, data.qvel]),
            "qacc_warmstart": data.qacc_warmstart.copy(),
            "render_quality": self.quality,
        }
        if self._simulation.model.na:
            info["act"] = data.act.copy()
        return info

    def _state_of(self, name: str, state: Any) -> State:
        """Split qpos‖qvel, or ContractError that calls it `name`."""
        model = self._simulation.model
        values = np.array(state, np.float64).reshape(-1)
        if values.shape != (model.nq + model.nv,) or not np.isfinite(values).all():
            raise ContractError(f"{name}={state!r}: expected {model.nq} + {model.nv} finite numbers, qpos and qvel")
        return values[: model.nq], values[model.nq :]

    def reset_options_from_dataset(self, init_row: Mapping[str, Any], goal_row: Mapping[str, Any]) -> dict[str, Any]:
        """Reset options that restore a recorded state bit for bit, and every recorded `variation.*` factor.

        Args:
            init_row: column -> value at the start; `qpos` and `qvel`, or `state`. `act` and `qacc_warmstart`, if
                recorded, make the episode go on exactly as it did.
            goal_row: goal_<column> -> value at the goal; used by envs with a goal.

        Raises:
            MissingKeyError: neither form of the state is there.
        """
        if "qpos" in init_row and "qvel" in init_row:
            state = np.concatenate([np.ravel(init_row["qpos"]), np.ravel(init_row["qvel"])])
        else:
            state = column(init_row, "state", "qpos").reshape(-1)
        options: dict[str, Any] = {"variation": [], "variation_values": recorded_factors(init_row), "state": state}
        for key in ("act", "qacc_warmstart"):
            if key in init_row:
                options[key] = np.ravel(init_row[key])
        return options

    # ------------------------------------------------------------------ copies
    def _model_and_data(self) -> tuple[Any, Any]:
        """The MjModel and MjData that a copy of this env steps."""
        raise NotImplementedError(f"{type(self).__name__} does not say where its model is")

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        if "_simulation" in state:
            import mujoco

            model, data, what = self._simulation.model, self._simulation.data, _everything()
            values = np.empty(mujoco.mj_stateSize(model, what))
            mujoco.mj_getState(model, data, values, what)
            state["_simulation"] = self._simulation.detached()
            state["_physics_state"] = values
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        values = state.pop("_physics_state", None)
        self.__dict__.update(state)
        if values is not None:
            import mujoco

            model, data = self._model_and_data()
            self._simulation.attach(model, data)
            mujoco.mj_setState(model, data, values, _everything())
            mujoco.mj_forward(model, data)
            mujoco.mj_setState(model, data, values, _everything())  # the warm start has moved on


def _everything() -> int:
    """All that an integrator reads, the solver's warm start included."""
    import mujoco

    return int(mujoco.mjtState.mjSTATE_INTEGRATION)
