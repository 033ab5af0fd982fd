"""`hf_arrow`: Arrow shards of episodes with JPEG files beside them."""

from stable_worldmodel.data.formats.hf_arrow.format import ArrowFormat

__all__ = ["ArrowFormat"]
