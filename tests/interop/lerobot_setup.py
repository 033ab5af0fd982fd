"""What has to be in place before LeRobot is imported."""

from __future__ import annotations

import os
import tempfile

import torch
from fake_hub import FakeHub

# Its client reads the address and the cache once, on import.
HUB = FakeHub().__enter__()
os.environ.update(HF_ENDPOINT=HUB.url, HF_HOME=tempfile.mkdtemp(), HF_HUB_DISABLE_TELEMETRY="1")

if torch.version.cuda is None:
    # torchvision's operators are built for CUDA and do not load beside a CPU build of torch. Nothing here calls them;
    # but its Python part describes one on import, which therefore has to be declared.
    torch.library.define("torchvision::nms", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
