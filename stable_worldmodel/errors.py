"""The exceptions this library raises.

Earlier generations promised different types for the same fault, so each class derives from every type a caller may
already be catching.
"""

from __future__ import annotations

import importlib
from types import ModuleType


class ContractError(ValueError, AssertionError):
    """An argument, shape or schema breaks a documented contract."""


class MissingKeyError(KeyError, AssertionError):
    """A requested info key or dataset column does not exist."""

    def __str__(self) -> str:
        # KeyError prints the repr of its argument, which would put a sentence in quotes.
        return str(self.args[0]) if self.args else ""


class PolicyNotSetError(RuntimeError, AttributeError):
    """A rollout was asked for before `set_policy`."""


class NotFoundError(FileNotFoundError, ValueError, AssertionError):
    """A dataset or model that was named does not exist."""


class MissingDependencyError(ImportError):
    """An optional package is needed and not installed; the message names the extra."""


def require(module: str, extra: str) -> ModuleType:
    """Import an optional `module`, or say which extra of this package installs it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingDependencyError(
            f"{module!r} could not be imported ({error}); install it with: pip install 'stable-worldmodel[{extra}]'"
        ) from error
