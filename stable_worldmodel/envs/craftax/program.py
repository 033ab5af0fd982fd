"""Craftax as compiled programs, one per variant and process, and its states as rows of bytes."""

from __future__ import annotations

import bz2
import contextlib
import functools
import io
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from stable_worldmodel.errors import ContractError, require
from stable_worldmodel.utils.files import write_atomically

try:
    import fcntl
except ImportError:  # Windows has no flock
    fcntl = None  # type: ignore[assignment]


class Program:
    """The pure functions of one variant, compiled at their first call (a minute on a CPU).

    Args:
        name: of the package, such as "Craftax-Classic-Pixels-v1".
        backend: of JAX, such as "cpu" or "gpu"; None for its default.

    Attributes:
        reset: (key, params) -> observation, state.
        step: (key, state, action, params) -> observation, state, reward, done, info.
        observe: state -> observation.
        params: the package's default parameters.
    """

    def __init__(self, name: str, backend: str | None):
        self._jax: Any = require("jax", "craftax")
        make: Any = require("craftax.craftax_env", "craftax")
        self._device = self._jax.devices(backend)[0]
        with contextlib.redirect_stdout(io.StringIO()):  # it tells about its textures
            _load_textures(name)
            env = make.make_craftax_env_from_name(name, auto_reset=False)
        self.params = env.default_params
        self.num_actions = int(env.action_space(self.params).n)
        self.shape = tuple(env.observation_space(self.params).shape)
        self.reset, self.step, self.observe = (self._compiled(f) for f in (env.reset, env.step, env.get_obs))
        _, like = self._jax.eval_shape(env.reset, self._jax.random.PRNGKey(0), self.params)
        self._leaves, self._tree = self._jax.tree_util.tree_flatten(like)
        self.state_size = sum(self._bytes_of(leaf) for leaf in self._leaves)

    def _compiled(self, function: Any) -> Any:
        program = self._jax.jit(function)

        def run(*arguments: Any) -> Any:
            with self._jax.default_device(self._device):
                return program(*arguments)

        return run

    @staticmethod
    def _bytes_of(leaf: Any) -> int:
        return int(np.prod(leaf.shape, dtype=np.int64)) * np.dtype(leaf.dtype).itemsize

    def key(self, seed: int) -> np.ndarray:
        """The key of a seed, uint32 (2,)."""
        return np.asarray(self._jax.random.PRNGKey(seed))

    def split(self, key: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Two keys of one; the first to go on with."""
        first, second = np.asarray(self._jax.random.split(self._jax.numpy.asarray(key)))
        return first, second

    def packed(self, state: Any) -> np.ndarray:
        """A state as one row, uint8 (state_size,)."""
        leaves = [np.ascontiguousarray(leaf) for leaf in self._jax.tree_util.tree_leaves(state)]
        return np.concatenate([leaf.reshape(-1).view(np.uint8) for leaf in leaves])

    def unpacked(self, row: Any) -> Any:
        """The state of a row, else ContractError."""
        content = np.ascontiguousarray(row).reshape(-1)
        if content.dtype != np.uint8 or len(content) != self.state_size:
            raise ContractError(
                f"state has {len(content)} values of {content.dtype}: expected {self.state_size} of uint8, as in info"
            )
        leaves, at = [], 0
        for leaf in self._leaves:
            end = at + self._bytes_of(leaf)
            leaves.append(content[at:end].view(leaf.dtype).reshape(leaf.shape))
            at = end
        return self._jax.tree_util.tree_unflatten(self._tree, leaves)


def _load_textures(name: str) -> None:
    """Let the package prepare what it draws with, or load it: one process at a time, as that takes minutes."""
    if "Pixels" not in name:
        return
    module: Any = require(f"craftax.{'craftax_classic' if 'Classic' in name else 'craftax'}.constants", "craftax")
    module.save_compressed_pickle = _save  # its own is read by others before it is complete
    folder = os.open(Path(module.__file__).parent, os.O_RDONLY) if fcntl else None
    try:
        if folder is not None:
            with contextlib.suppress(OSError):  # of file systems without locks
                fcntl.flock(folder, fcntl.LOCK_EX)
        try:
            module.load_all_textures()
        except EOFError:  # the package alone was interrupted while it saved them
            Path(module.TEXTURE_CACHE_FILE).unlink()
            module.load_all_textures()
    finally:
        if folder is not None:
            os.close(folder)


def _save(path: str, content: Any) -> None:
    write_atomically(path, bz2.compress(pickle.dumps(content)))


@functools.cache
def program(name: str, backend: str | None) -> Program:
    """The program of this variant, made once per process."""
    return Program(name, backend)
