"""Meshes with fewer faces: how they look, what they leave alone, and that they are made once for all processes."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

mujoco = pytest.importorskip("mujoco")
pytest.importorskip("fast_simplification")

from stable_worldmodel.envs.mujoco import meshes  # noqa: E402
from stable_worldmodel.envs.mujoco.renderer import digest_of  # noqa: E402

TENTH, FIFTH = meshes.Detail(0.1, 1e-4), meshes.Detail(0.2, 1e-4)


def ball(radius: float = 0.5) -> Any:
    """A model of two spheres that are meshes of 5,120 faces, named "robot/ball" and "ball"."""
    spec = mujoco.MjSpec()
    for name in ("robot/ball", "ball"):
        mesh = spec.add_mesh(name=name)
        mesh.make_sphere(subdivision=4)
        mesh.scale = [radius] * 3
        spec.worldbody.add_geom(type=mujoco.mjtGeom.mjGEOM_MESH, meshname=name)
    return spec.compile()


def simplified(model: Any, detail: meshes.Detail = TENTH) -> Any:
    """As in a process that has made none yet."""
    meshes._made.clear()
    return meshes.simplified(model, digest_of(model), detail, "robot/")


def kept(home: Path) -> list[Path]:
    return sorted((home / meshes.FOLDER).iterdir())


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STABLEWM_HOME", str(tmp_path / "swm"))
    monkeypatch.setattr(meshes, "_made", {})
    return tmp_path / "swm"


def test_a_sphere_stays_a_sphere_with_a_tenth_of_its_faces(home: Path) -> None:
    model = ball()
    before = digest_of(model)
    look = simplified(model)
    assert digest_of(model) == before
    assert look.mesh_facenum[0] == pytest.approx(0.1 * model.mesh_facenum[0], abs=1)
    assert look.mesh_facenum[1] == model.mesh_facenum[1]  # has another prefix
    points = look.mesh_vert[: look.mesh_vertnum[0]]
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), 0.5, atol=0.02)
    normals = look.mesh_normal[look.mesh_facenormal[: look.mesh_facenum[0]].reshape(-1)]
    corners = points[look.mesh_face[: look.mesh_facenum[0]].reshape(-1)]
    assert (normals * corners).sum(1).min() > 0.95 * 0.5  # they point outwards


def test_other_processes_find_what_one_has_made(home: Path) -> None:
    first = simplified(ball())
    (path,) = kept(home)
    with np.load(path) as file:
        parts = dict(file)
    np.savez(path, **{**parts, "vert_0": 2 * parts["vert_0"]})
    second = simplified(ball())
    count = first.mesh_vertnum[0]
    np.testing.assert_array_equal(second.mesh_vert[:count], 2 * first.mesh_vert[:count])
    assert kept(home) == [path]


def test_what_is_kept_belongs_to_its_meshes_and_arguments(home: Path) -> None:
    for model, detail in ((ball(), TENTH), (ball(0.6), TENTH), (ball(), FIFTH), (ball(), meshes.Detail(0.1, 0.1))):
        simplified(model, detail)
    assert len(kept(home)) == 4


def test_a_broken_file_is_made_again(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = digest_of(simplified(ball()))
    (path,) = kept(home)
    path.write_bytes(path.read_bytes()[:1000])
    with caplog.at_level(logging.WARNING):
        assert digest_of(simplified(ball())) == whole
    assert path.name in caplog.text
    caplog.clear()
    assert digest_of(simplified(ball())) == whole
    assert not caplog.text


def test_without_a_place_to_write_pictures_are_the_same(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = digest_of(simplified(ball()))
    (home / meshes.FOLDER).rename(home / "elsewhere")
    (home / meshes.FOLDER).write_text("not a folder")
    with caplog.at_level(logging.WARNING):
        assert digest_of(simplified(ball())) == whole
    assert "not kept" in caplog.text
