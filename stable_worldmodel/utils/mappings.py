"""Reading nested mappings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def flatten_dict(d: Mapping, parent_key: str = "", sep: str = ".") -> dict[str, Any]:
    """Nested mappings brought to one level: `{"a": {"b": 1}}` becomes `{"a.b": 1}`.

    Keys are turned into strings, empty nested mappings vanish, and where two paths give the same name the later wins.
    """
    flat: dict[str, Any] = {}
    for key, value in d.items():
        name = f"{parent_key}{sep}{key}" if parent_key else str(key)
        if isinstance(value, Mapping):
            flat.update(flatten_dict(value, name, sep))
        else:
            flat[name] = value
    return flat


def get_in(mapping: Mapping, path: Iterable) -> Any:
    """Follow the keys of `path` into nested mappings. A missing key raises KeyError with the path that failed."""
    value: Any = mapping
    walked = []
    for key in path:
        walked.append(key)
        try:
            value = value[key]
        except (KeyError, TypeError, IndexError) as error:
            raise KeyError(".".join(map(str, walked))) from error
    return value
