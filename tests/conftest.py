"""Shared fixtures: every test has its own data root and knows the toy envs."""

import pytest
import toy_envs

toy_envs.register()


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    """Nothing a test writes reaches the user's data root."""
    monkeypatch.setenv("STABLEWM_HOME", str(tmp_path / "home"))
