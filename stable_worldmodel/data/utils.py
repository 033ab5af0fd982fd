"""Module alias: earlier releases kept the cache helpers here."""

from stable_worldmodel.data.cache import ensure_dir_exists, get_cache_dir

__all__ = ["ensure_dir_exists", "get_cache_dir"]
