"""Package namespaces that import a name's module only when the name is used."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from stable_worldmodel.errors import require


def lazy_exports(package: str, exports: Mapping[str, str]) -> Callable[[str], Any]:
    """The `__getattr__` of `package` (its `__name__`), for `exports` of public name -> full module name.

    Where a module needs an optional package that is not installed, MissingDependencyError names the extra.
    """

    def __getattr__(name: str) -> Any:
        if name not in exports:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(require(exports[name]), name)

    return __getattr__
