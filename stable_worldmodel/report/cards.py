"""What a dataset is, in the few lines that a report shows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stable_worldmodel.data.columns import Column
from stable_worldmodel.data.registry import PathLike, format_of, load_dataset, locate_dataset
from stable_worldmodel.report.model import DatasetCard
from stable_worldmodel.utils.files import disk_size


def dataset_card(name: PathLike) -> DatasetCard:
    """Describe a dataset by name or path, from its index and metadata. Raises what `load_dataset` raises."""
    location = locate_dataset(name)
    dataset = load_dataset(location, keys_to_load=[])
    return DatasetCard(
        name=str(location),
        episodes=dataset.num_episodes,
        steps=int((dataset.lengths - 1).sum()),
        size=disk_size(location) if isinstance(location, Path) else None,
        format=format_of(location).name,
        columns=[(column, _describe(kind)) for column, kind in dataset.columns.items()],
        env=name_of(dataset.metadata.get("env"), "id"),
        policy=name_of(dataset.metadata.get("policy"), "class", "type"),
    )


def name_of(described: Any, *keys: str) -> str | None:
    """The name in what a run noted of its env or policy: text, or a mapping with one of `keys`."""
    if isinstance(described, Mapping):
        described = next((described[key] for key in keys if described.get(key)), None)
    return described if isinstance(described, str) else None


def _describe(column: Column) -> str:
    size = "x".join(map(str, column.shape))
    return f"{column.type_name} {size}".strip() + (" image" if column.kind == "image" else "")
