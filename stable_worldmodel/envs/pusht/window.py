"""A window that shows pictures, for `render_mode="human"`."""

from __future__ import annotations

import numpy as np
from PIL import Image

from stable_worldmodel.errors import require


class Window:
    """Opens at the first picture.

    Args:
        size: side of the window in px.
        fps: pictures per second; `show` waits to keep to it.
    """

    def __init__(self, size: int, fps: int):
        self._pygame = require("pygame", "env")
        self._size, self._fps = size, fps
        self._pygame.display.init()
        self._surface = self._pygame.display.set_mode((size, size))
        self._clock = self._pygame.time.Clock()

    def show(self, picture: np.ndarray) -> None:
        """Show a uint8 picture (H, W, 3), scaled to the window."""
        if picture.shape[:2] != (self._size, self._size):
            picture = np.asarray(Image.fromarray(picture).resize((self._size, self._size)))
        self._pygame.event.pump()
        self._pygame.surfarray.blit_array(self._surface, picture.swapaxes(0, 1))
        self._pygame.display.flip()
        self._clock.tick(self._fps)

    def close(self) -> None:
        """Close it."""
        self._pygame.display.quit()
