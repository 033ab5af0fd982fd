"""Small helpers that every layer may use. They import no other part of the library."""

from stable_worldmodel.utils.mappings import flatten_dict, get_in
from stable_worldmodel.utils.pretraining import pretraining

__all__ = ["flatten_dict", "get_in", "pretraining"]
