"""Meshes with fewer faces for pictures: what a picture of a few hundred pixels cannot show is not drawn.

Only a copy of the compiled model is changed, and only what is drawn of it; collisions and masses stay as they are.
"""

from __future__ import annotations

import copy
import hashlib
import io
import logging
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stable_worldmodel.errors import require
from stable_worldmodel.utils.files import cache_root, write_atomically

logger = logging.getLogger(__name__)

FEW = 200  # faces that no mesh is reduced below
FOLDER = "meshes"  # of the cache root
_FORMAT = 1  # of the files there, and of how meshes are made
_NEAR = 12  # corners of the stock mesh among which a normal is looked for
_INWARDS = 0.1  # of the way from a corner to the middle of its face

_PARTS = "vert", "face", "normal", "facenormal"  # of a mesh: (V, 3), (F, 3) of vertices, (N, 3), (F, 3) of normals
Mesh = tuple[np.ndarray, ...]
_made: dict[tuple[str, Detail, str], Any] = {}


@dataclass(frozen=True)
class Detail:
    """How much is left of a mesh: this part of its faces, if they can be removed, and nothing finer than `grid` m."""

    keep: float
    grid: float


def simplified(model: Any, digest: str, detail: Detail, prefix: str = "") -> Any:
    """A copy of a compiled `model` to draw in its place, whose meshes have fewer faces.

    Only meshes whose names start with `prefix` are simplified; textured ones and those of few faces stay as they are.

    It is made once per process for the same arguments, `digest` being the model's, from meshes kept in the folder
    `meshes` of the cache root, where other processes and models with the same ones find them. Without
    `fast_simplification` the model itself is returned: pictures then take longer.
    """
    key = digest, detail, prefix
    if key not in _made:
        _made[key] = _simplify(model, detail, prefix)
    return _made[key]


def _simplify(model: Any, detail: Detail, prefix: str) -> Any:
    try:
        library = require("fast_simplification", "env")
    except ImportError as error:
        logger.warning("meshes are drawn with all their faces, which is slow: %s", error)
        return model
    chosen = _to_reduce(model, detail.keep, prefix)
    if not chosen:
        return model
    path = _file(model, detail, chosen, library.__version__)
    meshes = _read(path, len(chosen))
    if meshes is None:
        meshes = [_reduced(model, number, detail, faces, library) for number, faces in chosen.items()]
        _keep(path, meshes)
    look = copy.copy(model)
    for number, mesh in zip(chosen, meshes, strict=True):
        _write(look, number, *mesh)
    return look


def _to_reduce(model: Any, keep: float, prefix: str) -> dict[int, int]:
    """Number of a mesh -> the faces that it shall have."""
    chosen = {}
    for number in range(model.nmesh):
        faces = int(model.mesh_facenum[number])
        wanted = max(FEW, int(keep * faces))
        if wanted < faces and not model.mesh_texcoordnum[number] and model.mesh(number).name.startswith(prefix):
            chosen[number] = wanted
    return chosen


def _reduced(model: Any, number: int, detail: Detail, faces: int, library: Any) -> Mesh:
    vertices, triangles = _merged(model, number, detail.grid)
    if len(triangles) > faces:
        vertices, triangles = library.simplify(vertices, triangles, target_count=faces)
    normals = _corner_normals(vertices, triangles, *_corners_of(model, number))
    normals, which = np.unique(normals, axis=0, return_inverse=True)
    return vertices, triangles, normals, which.reshape(-1, 3).astype(np.int32)


# ---------------------------------------------------------------------- on disk
def _file(model: Any, detail: Detail, chosen: dict[int, int], version: str) -> Path:
    """Where the outcome is kept, by everything that it depends on."""
    known = [_FORMAT, version, detail.grid, _NEAR, _INWARDS, *chosen.values()]
    content = hashlib.blake2b(repr(known).encode(), digest_size=16)
    for number in chosen:
        for part in _part_of(model, number):
            content.update(part.tobytes())
    return cache_root() / FOLDER / f"{content.hexdigest()}.npz"


def _part_of(model: Any, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Vertices and faces of a mesh."""
    at, first = model.mesh_vertadr[number], model.mesh_faceadr[number]
    vertices = model.mesh_vert[at : at + model.mesh_vertnum[number]]
    return vertices, model.mesh_face[first : first + model.mesh_facenum[number]]


def _corners_of(model: Any, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Places and normals (P, 3) of the corners of all faces of a mesh, equal ones once."""
    points, faces = _part_of(model, number)
    at, first = model.mesh_normaladr[number], model.mesh_faceadr[number]
    normals = model.mesh_normal[at : at + model.mesh_normalnum[number]]
    which = model.mesh_facenormal[first : first + model.mesh_facenum[number]]
    both = np.unique(np.stack([faces.reshape(-1), which.reshape(-1)], axis=1), axis=0)
    return points[both[:, 0]], normals[both[:, 1]]


def _read(path: Path, count: int) -> list[Mesh] | None:
    """What was kept, or None."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return [tuple(file[f"{part}_{i}"] for part in _PARTS) for i in range(count)]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        logger.warning("%s cannot be read and is made again: %r", path, error)
        return None


def _keep(path: Path, meshes: list[Mesh]) -> None:
    """Write them. What goes wrong is logged: the next process then makes them again."""
    file = io.BytesIO()
    arrays = {f"{part}_{i}": values for i, mesh in enumerate(meshes) for part, values in zip(_PARTS, mesh, strict=True)}
    np.savez(file, **arrays)  # type: ignore[arg-type]
    try:
        write_atomically(path, file.getvalue())
    except OSError as error:
        logger.warning("simplified meshes are not kept for other processes: %s", error)


# ---------------------------------------------------------------------- geometry
def _merged(model: Any, number: int, grid: float) -> tuple[np.ndarray, np.ndarray]:
    """Vertices and faces of a mesh whose faces share vertices, those closer than `grid` being one.

    Files that hold one normal per corner repeat vertices, and small details keep the library from removing faces.
    """
    points, corners = _part_of(model, number)
    vertices, place = np.unique(np.rint(points / grid), axis=0, return_inverse=True)
    triangles = place.reshape(-1)[corners].astype(np.int32)
    triangles = triangles[(triangles != np.roll(triangles, 1, axis=1)).all(1)]
    _, once = np.unique(np.sort(triangles, axis=1), axis=0, return_index=True)
    return (vertices * grid).astype(np.float32), np.ascontiguousarray(triangles[np.sort(once)])


def _write(look: Any, number: int, *mesh: np.ndarray) -> None:
    """Put a smaller mesh in the place of mesh `number`, where there is room for it."""
    own = slice(int(look.mesh_vertadr[number]), int(look.mesh_vertadr[number] + look.mesh_vertnum[number]))
    counts = {part: getattr(look, f"mesh_{part}num") for part in ("vert", "face", "normal")}
    if not len(mesh[1]) or any(len(values) > counts[part][number] for part, values in zip(counts, mesh, strict=False)):
        return
    for part, values in zip(_PARTS, mesh, strict=True):
        at = getattr(look, f"mesh_{_ADDRESS.get(part, part)}adr")[number]
        getattr(look, f"mesh_{part}")[at : at + len(values)] = values
        if part in counts:
            counts[part][number] = len(values)
    look.mesh_graphadr[number] = -1  # convex hull and polygons stand on the vertices that were
    look.mesh_polynum[number] = look.mesh_polymapnum[own] = 0


_ADDRESS = {"facenormal": "face"}


def _corner_normals(vertices: np.ndarray, faces: np.ndarray, points: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """Normals (3F, 3) of the corners: of those that the stock mesh has nearby, the one closest to the face's own.

    Computed from the few faces alone, they would show every one of them.

    Args:
        vertices, faces: of the smaller mesh.
        points, normals: (P, 3), corners of the stock mesh.
    """
    from scipy.spatial import cKDTree

    a, b, c = (vertices[faces[:, i]].astype(np.float64) for i in range(3))
    across = np.cross(b - a, c - a)
    unit = across / np.maximum(np.linalg.norm(across, axis=1, keepdims=True), 1e-12)
    corners = np.stack([a, b, c], axis=1)
    middles = corners.mean(axis=1, keepdims=True)
    inside = (corners + _INWARDS * (middles - corners)).reshape(-1, 3)  # so that faces beside each other differ
    _, near = cKDTree(points).query(inside, k=min(_NEAR, len(points)))
    own = unit.repeat(3, axis=0)
    fit = np.einsum("cnd,cd->cn", normals[near], own)
    return normals[near[np.arange(len(near)), fit.argmax(axis=1)]].astype(np.float32)
