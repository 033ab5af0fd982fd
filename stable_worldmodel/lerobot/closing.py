"""Closing whatever an env factory may have returned."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

logger = logging.getLogger(__name__)


def close_single_env(env: Any) -> None:
    """Close one env. A failure is logged, so that others can still be closed."""
    try:
        env.close()
    except Exception:
        logger.exception("closing %s failed", type(env).__name__)


def close_envs(obj: Any) -> None:
    """Close every env in `obj`: an env, or mappings and sequences of them, nested to any depth. Texts are skipped.

    Raises NotImplementedError for anything else.
    """
    if isinstance(obj, (str, bytes)):
        return
    if callable(getattr(obj, "close", None)):
        close_single_env(obj)
    elif isinstance(obj, Mapping):
        _close_all(obj.values())
    elif isinstance(obj, Sequence):
        _close_all(obj)
    else:
        raise NotImplementedError(f"{type(obj).__name__} is no env, and no mapping or sequence of envs")


def _close_all(items: Any) -> None:
    for item in items:
        if isinstance(item, (str, bytes, Mapping, Sequence)) or callable(getattr(item, "close", None)):
            close_envs(item)
        else:
            logger.warning("%s among the envs cannot be closed", type(item).__name__)
