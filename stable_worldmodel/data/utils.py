"""Module alias: earlier releases kept these helpers here."""

from stable_worldmodel.data.cache import ensure_dir_exists, get_cache_dir
from stable_worldmodel.data.catalog import (
    dataset_info,
    delete_dataset,
    delete_model,
    list_datasets,
    list_models,
    list_worlds,
    world_info,
)
from stable_worldmodel.data.columns import is_image

__all__ = [
    "dataset_info",
    "delete_dataset",
    "delete_model",
    "ensure_dir_exists",
    "get_cache_dir",
    "is_image",
    "list_datasets",
    "list_models",
    "list_worlds",
    "world_info",
]
