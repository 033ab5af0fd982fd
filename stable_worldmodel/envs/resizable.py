"""Pictures of any size: the property `render_shape`."""

from __future__ import annotations

from stable_worldmodel.errors import ContractError


class Resizable:
    """Gives an env `render_shape`; stands before `gymnasium.Env` in the bases. What is drawn ahead is drawn anew."""

    _shape: tuple[int, int]

    @property
    def render_shape(self) -> tuple[int, int]:
        """(H, W) of `render()`, and of `goal` where there is one; may be set at any time."""
        return self._shape

    @render_shape.setter
    def render_shape(self, shape: tuple[int, int]) -> None:
        self._shape = checked_shape(shape)
        self._resized()

    def _resized(self) -> None:
        """Draw again what depends on the size and was drawn before, such as the goal."""


def checked_shape(shape: tuple[int, int]) -> tuple[int, int]:
    """(H, W) as integers; ContractError unless they are positive."""
    height, width = shape
    if height < 1 or width < 1:
        raise ContractError(f"render_shape={shape}: expected positive (H, W)")
    return int(height), int(width)
