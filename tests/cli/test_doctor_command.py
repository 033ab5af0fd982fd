"""`swm doctor` through the real application."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from stable_worldmodel.cli import app
from stable_worldmodel.envs.mujoco import backend


def doctor(*arguments: str):
    return CliRunner().invoke(app, ["doctor", *arguments])


def test_it_says_what_draws_and_how_fast_and_warns_of_software() -> None:
    done = doctor("--json")
    assert done.exit_code == 0, done.output
    findings = {finding["subject"]: finding for finding in json.loads(done.stdout)}
    gl = findings["GL"]
    assert backend().renderer in gl["found"]
    assert (gl["status"] == "warning") == backend().software
    assert bool(gl["advice"]) == backend().software
    for env in ("swm/PushT-v1", "swm/ReacherDMControl-v0"):
        assert float(findings[env]["found"].split()[0]) > 0
    assert all(finding["status"] == "ok" for name, finding in findings.items() if name.startswith("extra "))


def test_quick_measures_nothing() -> None:
    subjects = {finding["subject"] for finding in json.loads(doctor("--quick", "--json").stdout)}
    assert {"library", "GL", "data root", "torch"} <= subjects
    assert not {"swm/PushT-v1", "disk"} & subjects


def test_a_data_root_that_cannot_be_one_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    file.touch()
    monkeypatch.setenv("STABLEWM_HOME", str(file / "inside"))
    done = doctor("--quick")
    assert done.exit_code == 1
    assert "STABLEWM_HOME" in done.stdout


def test_a_missing_package_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("stable_worldmodel.errors").errors.EXTRAS, "no_such_package", "imaginary")
    done = doctor("--quick")
    assert "without no_such_package" in done.stdout
    assert "stable-worldmodel[imaginary]" in done.stdout
