"""A hub of their own for tests of code that comes from one."""

from __future__ import annotations

import sys

import pytest
from fake_hub import FakeHub


@pytest.fixture
def hub(monkeypatch):
    with FakeHub() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


@pytest.fixture(autouse=True)
def forget_hub_modules():
    yield
    for name in [name for name in sys.modules if name.startswith("hub_env_")]:
        del sys.modules[name]
