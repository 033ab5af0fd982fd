"""Training world models: one loop for every registered model.

    config = TrainConfig.preset("small")
    dataset = load_dataset("two_room.h5", num_steps=config.num_steps, frameskip=config.frameskip)
    result = train(config, dataset, "runs/lewm")
    model = load_pretrained(result.checkpoint)

torch and accelerate are imported when `train` is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stable_worldmodel.utils.lazy import lazy_exports

# Public name -> module.
_LAZY = {
    "TrainCallback": "stable_worldmodel.train.loop",
    "TrainConfig": "stable_worldmodel.train.config",
    "TrainResult": "stable_worldmodel.train.loop",
    "train": "stable_worldmodel.train.loop",
}
__all__ = sorted(_LAZY)

if TYPE_CHECKING:
    from stable_worldmodel.train.config import TrainConfig as TrainConfig
    from stable_worldmodel.train.loop import TrainCallback as TrainCallback
    from stable_worldmodel.train.loop import TrainResult as TrainResult
    from stable_worldmodel.train.loop import train as train

__getattr__ = lazy_exports(__name__, _LAZY)
