"""What a hostile, broken or unreachable repository can do: nothing but raise an error that names it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from fake_hub import FakeHub
from gymnasium.vector import SyncVectorEnv

import stable_worldmodel as swm
from stable_worldmodel.errors import ContractError
from stable_worldmodel.lerobot import close_envs, make_env

REPO = "someone/room"
GOOD = """
from gymnasium.vector import SyncVectorEnv
import gymnasium as gym

def make_env(n_envs=1, use_async_envs=False):
    return SyncVectorEnv([lambda: gym.make("CartPole-v1")] * n_envs)
"""


def marking(path: Path, code: str = GOOD) -> str:
    """`code` that leaves a file when it runs."""
    return f"open({str(path)!r}, 'a').close()\n{code}"


@pytest.fixture
def build(tmp_path):
    """Builds the repository's envs in a cache of this test, and closes them."""

    def run(address: str = REPO, trust: bool = True) -> list[str]:
        envs = make_env(address, 2, hub_cache_dir=tmp_path / "cache", trust_remote_code=trust)
        assert isinstance(envs["hub_env"][0] if "hub_env" in envs else envs["CartPole-v1"][0], SyncVectorEnv)
        close_envs(envs)
        return list(envs)

    return run


def modules() -> list[str]:
    return [name for name in sys.modules if name.startswith("hub_env_")]


def outside(tmp_path: Path) -> set[str]:
    """What lies beside the cache."""
    return {path.name for path in tmp_path.iterdir()} - {"cache", "home"}


def test_code_that_was_fetched_once_is_still_not_run_without_consent(hub: FakeHub, build, tmp_path) -> None:
    hub.add(REPO, {"env.py": marking(tmp_path / "ran")})
    build()
    (tmp_path / "ran").unlink()
    asked = len(hub.requests)
    with pytest.raises(RuntimeError, match="trust_remote_code=True"):
        build(trust=False)
    with pytest.raises(RuntimeError, match="trust_remote_code=True"):
        swm.World(f"hub:{REPO}", 2, add_pixels=False)
    assert (outside(tmp_path), len(hub.requests)) == (set(), asked)


@pytest.mark.parametrize(
    "address", [f"{REPO}:../env.py", f"{REPO}:a/../../env.py", f"{REPO}:/env.py", f"{REPO}@../x", "../room", "a/../b"]
)
def test_addresses_that_leave_the_repository_are_not_asked_for(hub: FakeHub, build, address: str) -> None:
    hub.add(REPO, {"env.py": GOOD, "../env.py": GOOD})
    with pytest.raises(ContractError, match="hub address"):
        build(address)
    assert hub.requests == []


@pytest.mark.parametrize("name", ["../evil.py", "../../../../evil.py", "/evil.py", "a/../../../../../evil.py"])
def test_listing_of_files_outside_the_snapshot_writes_none(hub: FakeHub, build, tmp_path, name: str) -> None:
    hub.add(REPO, {"env.py": "from .parts import make_env\n", name: "x", "parts.py": GOOD})
    with pytest.raises(ValueError, match=r"(?i)invalid"):
        build()  # `parts` needs the whole snapshot
    assert outside(tmp_path) == set()
    assert not Path("/evil.py").exists()
    assert not [*tmp_path.rglob("evil.py")]


@pytest.mark.parametrize("linked", ["env.py", "parts.py"])
def test_links_out_of_the_snapshot_are_not_followed(hub: FakeHub, build, tmp_path, linked: str) -> None:
    hub.add(REPO, {"env.py": "from .parts import make_env\n", "parts.py": GOOD})
    build()
    evil = tmp_path / "evil.py"
    evil.write_text(marking(tmp_path / "ran"))
    (file,) = (tmp_path / "cache").rglob(f"snapshots/*/{linked}")
    file.unlink()
    file.symlink_to(evil)
    with pytest.raises(ContractError, match="outside of its repository; delete"):
        build()
    assert not (tmp_path / "ran").exists()


def test_link_to_a_folder_outside_is_not_followed(hub: FakeHub, build, tmp_path) -> None:
    hub.add(REPO, {"env.py": GOOD, "README.md": "x"})
    build()
    (tmp_path / "evil").mkdir()
    (tmp_path / "evil" / "__init__.py").write_text(marking(tmp_path / "ran"))
    (file,) = (tmp_path / "cache").rglob("snapshots/*/env.py")
    (file.parent / "parts").symlink_to(tmp_path / "evil")
    with pytest.raises(ContractError, match="outside of its repository"):
        build()


def test_link_into_another_repository_is_not_followed(hub: FakeHub, build, tmp_path) -> None:
    hub.add(REPO, {"env.py": GOOD})
    hub.add("mallory/room", {"env.py": marking(tmp_path / "ran")})
    build("mallory/room")
    (tmp_path / "ran").unlink()
    build()
    (theirs,) = (tmp_path / "cache").rglob("models--mallory--room/snapshots/*/env.py")
    (ours,) = (tmp_path / "cache").rglob("models--someone--room/snapshots/*/env.py")
    ours.unlink()
    ours.symlink_to(theirs)
    with pytest.raises(ContractError, match="outside of its repository"):
        build()
    assert not (tmp_path / "ran").exists()


def test_files_of_the_repository_do_not_stand_in_for_installed_packages(hub: FakeHub, build, tmp_path) -> None:
    evil = marking(tmp_path / "ran", "")
    hub.add(REPO, {"env.py": f"import colorsys, surely_not_here_either\n{GOOD}", "colorsys.py": evil,
                   "surely_not_here_either.py": evil})  # fmt: skip
    sys.modules.pop("colorsys", None)
    with pytest.raises(ModuleNotFoundError, match="needs the package 'surely_not_here_either'"):
        build()
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("code", "error", "message"),
    [
        ("import surely_not_installed", ModuleNotFoundError, r"someone/room needs the package 'surely_not_installed'"),
        ("from surely_not_installed.deep import x", ModuleNotFoundError, "'surely_not_installed'"),
        ("import numpy.surely_not_there", ModuleNotFoundError, "numpy"),
        ("from gymnasium import surely_not_there", ImportError, r"env\.py of someone/room failed on import"),
        ("1 / 0", ImportError, r"env\.py of someone/room failed on import with ZeroDivisionError"),
        ("def make_env(", ImportError, "SyntaxError"),
        ("raise SystemExit(3)", ImportError, "SystemExit"),
        ("from .parts import make_env", ModuleNotFoundError, r"someone/room has no file 'parts'"),
        ("value = 3", AttributeError, "no function make_env"),
        ("make_env = 3", AttributeError, "no function make_env"),
        ("def make_env(n_envs): pass", TypeError, "use_async_envs"),
    ],
)
def test_code_that_cannot_run_is_reported_and_its_repair_is_used(
    hub: FakeHub, build, code: str, error: type, message: str
) -> None:
    hub.add(REPO, {"env.py": code})
    with pytest.raises(error, match=message):
        build()
    hub.add(REPO, {"env.py": GOOD})
    assert build() == ["hub_env"]


@pytest.mark.parametrize("result", ["None", "3", "'env'", "[]", "{}", "{'a': 3}", "{'a': {}}", "{1: {0: None}}", "gym"])
def test_what_is_no_env_is_named_with_the_repository(hub: FakeHub, build, result: str) -> None:
    hub.add(REPO, {"env.py": f"import gymnasium as gym\ndef make_env(n_envs, use_async_envs): return {result}"})
    with pytest.raises(ValueError, match=r"someone/room:env\.py: make_env returned .*expected a vector env"):
        build()


def test_envs_of_a_result_that_is_refused_are_closed(hub: FakeHub, build, tmp_path) -> None:
    closing = (
        f"class Closing(gym.Env):\n    def close(self):\n        open({str(tmp_path / 'closed')!r}, 'a').close()\n"
    )
    make = "def make_env(n_envs, use_async_envs): return {'a': {0: Closing()}}"
    hub.add(REPO, {"env.py": f"import gymnasium as gym\n{closing}{make}"})
    with pytest.raises(ValueError, match="make_env returned a mapping"):
        build()
    assert outside(tmp_path) == {"closed"}


# ---------------------------------------------------------------------- downloads
@pytest.fixture
def impatient(monkeypatch):
    """The client waits between its attempts."""
    monkeypatch.setattr("time.sleep", lambda seconds: None)


CUT = r"(?i)peer|consistency|incomplete|size|closed"


@pytest.mark.parametrize("cut", ["env.py", "parts.py"])
def test_half_a_snapshot_is_not_run_and_the_rest_is_fetched_next_time(
    hub: FakeHub, build, impatient, tmp_path, cut: str
) -> None:
    parts = "\n".join([GOOD, *(f"x{i} = {i}" for i in range(50)), marking(tmp_path / "ran", "")])
    hub.add(REPO, {"env.py": f"from .parts import make_env\n{'#' * 200}\n", "parts.py": parts})
    hub.truncated.add(cut)
    with pytest.raises(Exception, match=CUT):
        build()
    assert (modules(), outside(tmp_path)) == ([], set())
    assert not list((tmp_path / "cache").rglob(f"snapshots/*/{cut}"))
    hub.truncated.clear()
    assert build() == ["hub_env"]


def test_snapshot_whose_file_is_gone_is_completed(hub: FakeHub, build, tmp_path) -> None:
    hub.add(REPO, {"env.py": "from .parts import make_env\n", "parts.py": GOOD})
    build()
    for file in (tmp_path / "cache").rglob("parts.py"):
        file.unlink()
    sys.modules.pop("hub_env_someone_room_env.parts")
    assert build() == ["hub_env"]


def test_what_the_hub_does_not_have_is_the_error_and_leaves_nothing(hub: FakeHub, build, tmp_path) -> None:
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    hub.add(REPO, {"README.md": "x"}, "v1")
    for address, error in (
        ("nobody/nothing", RepositoryNotFoundError),
        (f"{REPO}@v2", RevisionNotFoundError),
        (f"{REPO}@v1", FileNotFoundError),
        (f"{REPO}@v1:deep/room.py", FileNotFoundError),
    ):
        with pytest.raises(error):
            build(address)
    hub.add("nobody/nothing", {"env.py": GOOD})
    hub.add(REPO, {"env.py": GOOD, "deep/room.py": GOOD}, "v2")
    for address in ("nobody/nothing", f"{REPO}@v2", f"{REPO}@v2:deep/room.py"):
        build(address)


def test_branch_is_fetched_again_and_a_commit_is_not(hub: FakeHub, build, tmp_path) -> None:
    commit = hub.add(REPO, {"env.py": marking(tmp_path / "old")}, "main")
    build()
    hub.add(REPO, {"env.py": marking(tmp_path / "new")}, "main")
    hub.add(REPO, {"env.py": marking(tmp_path / "old")}, "kept")
    build()
    assert outside(tmp_path) == {"old", "new"}
    (tmp_path / "new").unlink()
    build(f"{REPO}@{commit}")
    assert outside(tmp_path) == {"old"}
