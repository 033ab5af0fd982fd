"""Small helpers that every layer may use. They import no other part of the library.

`record_video_from_dataset` is offered under this name too; it lives with the other videos and is imported when used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stable_worldmodel.utils.launch import pretraining
from stable_worldmodel.utils.lazy import lazy_exports
from stable_worldmodel.utils.mappings import flatten_dict, get_in

if TYPE_CHECKING:
    from stable_worldmodel.world.recording import record_video_from_dataset as record_video_from_dataset

__all__ = ["flatten_dict", "get_in", "pretraining", "record_video_from_dataset"]

__getattr__ = lazy_exports(__name__, {"record_video_from_dataset": "stable_worldmodel.world.recording"})
