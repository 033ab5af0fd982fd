"""Code from the hub: addresses, consent, downloads, imports, and what may go wrong with each."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from fake_hub import FakeHub
from gymnasium.vector import SyncVectorEnv
from hypothesis import given, settings
from hypothesis import strategies as st
from lerobot_toys import ReachEnv, factories

import stable_worldmodel as swm
from stable_worldmodel.errors import ContractError, MissingDependencyError
from stable_worldmodel.lerobot import (
    HubEnvConfig,
    LazyVectorEnv,
    call_make_env,
    close_envs,
    download_hub_file,
    import_hub_module,
    load_module_from_path,
    make_env,
    normalize_hub_result,
    parse_hub_url,
)
from stable_worldmodel.policy import RandomPolicy

REPO = "someone/reach"
ENV = """
from gymnasium.vector import SyncVectorEnv
import gymnasium as gym
import numpy as np

class Line(gym.Env):
    metadata = {"render_modes": ["rgb_array"]}
    render_mode = "rgb_array"
    observation_space = gym.spaces.Box(-10, 10, (1,), np.float32)
    action_space = gym.spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x, self.t = np.float32(self.np_random.uniform(-1, 1)), 0
        return np.array([self.x]), {"is_success": False}

    def step(self, action):
        self.x, self.t = np.float32(self.x + action[0]), self.t + 1
        return np.array([self.x]), 1.0, self.t >= 3, False, {"is_success": bool(self.x > 0)}

    def render(self):
        return np.full((6, 6, 3), self.t, np.uint8)

CALLS = []

def make_env(n_envs=1, use_async_envs=False, cfg=None):
    CALLS.append((n_envs, use_async_envs, cfg))
    return SyncVectorEnv([Line] * n_envs)
"""


# ---------------------------------------------------------------------- addresses
@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("a/b", ("a/b", None, "env.py")),
        ("a/b@main", ("a/b", "main", "env.py")),
        ("a/b:envs/x.py", ("a/b", None, "envs/x.py")),
        ("a/b@0f3c:x.py", ("a/b", "0f3c", "x.py")),
        ("a/b@feature/new:x@2.py", ("a/b", "feature/new", "x@2.py")),
    ],
)
def test_address_is_split(address: str, expected: tuple) -> None:
    assert parse_hub_url(address) == expected


@pytest.mark.parametrize(
    "address",
    ["", "a", "a/", "/b", "a/b@", "a/b:", "a/b@:x.py", "a/b:/etc/x.py", "a/b:../x.py", "a/b:x/../../y.py", "../b",
     "a/..", "a/b/c", "a/b@../x", "a/b:..\\x.py", "a/b:c:d.py", "a b/c"],
)  # fmt: skip
def test_malformed_or_escaping_address_is_refused(address: str) -> None:
    with pytest.raises(ContractError, match="hub address"):
        parse_hub_url(address)


@given(st.text(max_size=30))
@settings(max_examples=300, deadline=None)
def test_whatever_is_accepted_stays_in_its_repository(path: str) -> None:
    try:
        _, _, found = parse_hub_url(f"a/b:{path}")
    except ContractError:
        return
    root = Path("/srv/a")
    assert (root / found).resolve().is_relative_to(root)


# ---------------------------------------------------------------------- consent and download
def test_nothing_is_asked_of_the_hub_without_consent(hub: FakeHub) -> None:
    hub.add(REPO, {"env.py": ENV})
    for attempt in (
        lambda: download_hub_file(REPO, False, None),
        lambda: make_env(REPO),
        lambda: make_env(HubEnvConfig(hub_path=REPO)),
        lambda: swm.World(f"hub:{REPO}", image_shape=(6, 6)),
    ):
        with pytest.raises(RuntimeError, match=r"trust_remote_code=True.*<commit>"):
            attempt()
    assert hub.requests == []


def test_file_comes_with_repository_path_and_revision(hub: FakeHub, tmp_path) -> None:
    commit = hub.add(REPO, {"env.py": ENV}, "v1")
    repo_id, path, local, revision = download_hub_file(f"{REPO}@v1", True, tmp_path)
    assert (repo_id, path, revision) == (REPO, "env.py", "v1")
    assert Path(local).read_text() == ENV
    assert commit in local


def test_missing_file_falls_back_to_the_snapshot(hub: FakeHub, tmp_path) -> None:
    hub.add(REPO, {"env.py": ENV, "README.md": "x"})
    hub.hidden.add("env.py")
    _, _, local, _ = download_hub_file(REPO, True, tmp_path)
    assert Path(local).read_text() == ENV
    assert (Path(local).parent / "README.md").exists()


def test_file_that_does_not_exist_is_named_with_its_revision(hub: FakeHub, tmp_path) -> None:
    hub.add(REPO, {"README.md": "x"})
    with pytest.raises(FileNotFoundError, match=r"someone/reach.*'env\.py'.*main"):
        download_hub_file(REPO, True, tmp_path)


def test_unknown_repository_and_revision_are_the_clients_errors(hub: FakeHub, tmp_path) -> None:
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    with pytest.raises(RepositoryNotFoundError):
        download_hub_file(REPO, True, tmp_path)
    hub.add(REPO, {"env.py": ENV})
    with pytest.raises(RevisionNotFoundError):
        download_hub_file(f"{REPO}@v9", True, tmp_path)


def test_hub_that_cannot_be_reached_is_its_own_error_unless_the_file_is_here(
    hub: FakeHub, tmp_path, monkeypatch
) -> None:
    from huggingface_hub.errors import LocalEntryNotFoundError

    monkeypatch.setattr("time.sleep", lambda seconds: None)
    hub.add(REPO, {"env.py": ENV})
    download_hub_file(REPO, True, tmp_path / "warm")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(LocalEntryNotFoundError):
        download_hub_file(REPO, True, tmp_path / "cold")
    assert Path(download_hub_file(REPO, True, tmp_path / "warm")[2]).read_text() == ENV


def test_missing_client_names_the_extra(monkeypatch, tmp_path) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingDependencyError, match=r"stable-worldmodel\[lerobot\]"):
        download_hub_file(REPO, True, tmp_path)


def test_interrupted_download_leaves_nothing_that_is_used_later(hub: FakeHub, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # the client waits between its attempts
    hub.add(REPO, {"env.py": ENV})
    hub.truncate = True
    with pytest.raises(Exception, match=r"(?i)peer|consistency|incomplete|size|closed"):
        make_env(REPO, hub_cache_dir=tmp_path, trust_remote_code=True)
    assert not [name for name in sys.modules if name.startswith("hub_env_")]
    hub.truncate = False
    envs = make_env(REPO, hub_cache_dir=tmp_path, trust_remote_code=True)
    close_envs(envs)
    assert list(envs) == ["hub_env"]


def test_link_out_of_the_snapshot_is_refused_and_not_run(hub: FakeHub, tmp_path) -> None:
    hub.add(REPO, {"env.py": ENV})
    _, _, local, _ = download_hub_file(REPO, True, tmp_path / "cache")
    outside = tmp_path / "outside.py"
    outside.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    for name in ("env.py", "helper.py"):
        Path(local).unlink(missing_ok=True)
        (Path(local).parent / name).symlink_to(outside)
        with pytest.raises(ContractError, match="outside of its repository"):
            make_env(REPO, hub_cache_dir=tmp_path / "cache", trust_remote_code=True)
    assert not (tmp_path / "ran").exists()


# ---------------------------------------------------------------------- import
def write(folder: Path, text: str, name: str = "env.py") -> Path:
    path = folder / name
    path.write_text(textwrap.dedent(text))
    return path


def test_module_is_named_after_file_or_repository(tmp_path) -> None:
    path = write(tmp_path, "value = 3")
    assert load_module_from_path(path).__name__ == "hub_env_env_py"
    assert load_module_from_path(path, "hub_env_other").value == 3
    assert import_hub_module(path, "a/b").__name__ == "hub_env_a_b_env"
    assert not list(tmp_path.glob("__pycache__"))


def test_file_that_is_no_python_is_refused(tmp_path) -> None:
    with pytest.raises(ImportError, match="expected a Python file"):
        load_module_from_path(write(tmp_path, "x", "env.txt"))


def test_bytecode_beside_the_file_is_not_run(tmp_path) -> None:
    import importlib.util
    import py_compile

    path = write(tmp_path, "value = 'evil'")
    cached = py_compile.compile(str(path), invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    assert cached == importlib.util.cache_from_source(str(path))
    write(tmp_path, "value = 'good'")
    assert load_module_from_path(path).value == "good"


@pytest.mark.parametrize(
    ("code", "error", "message"),
    [
        ("import surely_not_installed", ModuleNotFoundError, "a/b needs the package 'surely_not_installed'"),
        ("1 / 0", ImportError, r"env\.py of a/b failed on import with ZeroDivisionError"),
        ("def (", ImportError, "SyntaxError"),
        ("raise SystemExit(3)", ImportError, "SystemExit"),
    ],
)
def test_module_that_fails_is_reported_and_forgotten(tmp_path, code: str, error: type, message: str) -> None:
    path = write(tmp_path, code)
    with pytest.raises(error, match=message) as caught:
        import_hub_module(path, "a/b")
    assert caught.value.__cause__ is not None
    assert "hub_env_a_b_env" not in sys.modules
    write(tmp_path, "value = 1")
    assert import_hub_module(path, "a/b").value == 1


def test_failing_import_keeps_the_module_that_was_there(tmp_path) -> None:
    path = write(tmp_path, "value = 1")
    module = import_hub_module(path, "a/b")
    write(tmp_path, "1 / 0")
    with pytest.raises(ImportError):
        import_hub_module(path, "a/b")
    assert sys.modules["hub_env_a_b_env"] is module


def test_other_files_of_the_repository_are_fetched_when_imported(hub: FakeHub, tmp_path) -> None:
    hub.add(REPO, {"env.py": "from .parts import Line, make_env\n", "parts.py": ENV, "junk.bin": "x"})
    envs = make_env(REPO, 2, hub_cache_dir=tmp_path, trust_remote_code=True)
    assert envs["hub_env"][0].num_envs == 2
    close_envs(envs)
    hub.add(REPO, {"env.py": "from .gone import make_env\n"})
    with pytest.raises(ModuleNotFoundError, match="someone/reach has no file 'gone'"):
        make_env(REPO, hub_cache_dir=tmp_path, trust_remote_code=True)


# ---------------------------------------------------------------------- make_env
def test_make_env_of_the_module_gets_what_it_was_asked_for(hub: FakeHub, tmp_path) -> None:
    hub.add(REPO, {"env.py": ENV})
    config = HubEnvConfig(hub_path=REPO, task="push")
    for cfg in (REPO, config):
        close_envs(make_env(cfg, 2, hub_cache_dir=tmp_path, trust_remote_code=True))
        (call,) = sys.modules["hub_env_someone_reach_env"].CALLS
        assert call == (2, False, config if cfg is config else None)


def test_module_without_make_env_is_named(tmp_path) -> None:
    module = load_module_from_path(write(tmp_path, "make_env = 3"))
    with pytest.raises(AttributeError, match="hub_env_env_py has no function make_env"):
        call_make_env(module, 1, False, None)


def test_cfg_is_passed_only_if_there_is_one(tmp_path) -> None:
    module = load_module_from_path(write(tmp_path, "def make_env(n_envs, use_async_envs): return n_envs"))
    assert call_make_env(module, 4, False, None) == 4
    with pytest.raises(TypeError):
        call_make_env(module, 4, False, HubEnvConfig(hub_path=REPO))


@pytest.mark.parametrize("n_envs", [0, -1, True, 1.5])
@pytest.mark.parametrize("cfg", [REPO, HubEnvConfig(hub_path=REPO)])
def test_number_of_envs_is_checked_on_every_path(cfg, n_envs) -> None:
    with pytest.raises(ValueError, match="n_envs"):
        make_env(cfg, n_envs, trust_remote_code=True)


def test_the_three_accepted_results_have_one_form() -> None:
    vector = SyncVectorEnv(factories(2))
    assert normalize_hub_result(vector) == {"hub_env": {0: vector}}
    lazy = LazyVectorEnv(factories(2))
    assert normalize_hub_result({"suite": {3: lazy}}) == {"suite": {3: lazy}}
    single = gym.make("CartPole-v1")
    found = normalize_hub_result(single)
    assert found["CartPole-v1"][0].num_envs == 1
    close_envs([vector, found])


@pytest.mark.parametrize(
    "result", [None, 3, "env", [], {}, {"a": {}}, {"a": 3}, {1: {0: None}}, {"a": {0: ReachEnv()}}, {"a": {"x": None}}]
)
def test_other_results_are_refused_naming_the_forms(result) -> None:
    with pytest.raises(ValueError, match=r"a vector env, a single gymnasium env, or"):
        normalize_hub_result(result)


def test_wrong_result_of_a_repository_is_named_with_it(hub: FakeHub, tmp_path) -> None:
    hub.add(REPO, {"env.py": "def make_env(n_envs, use_async_envs): return 'nothing'"})
    with pytest.raises(ValueError, match=r"someone/reach:env\.py: make_env returned str"):
        make_env(REPO, hub_cache_dir=tmp_path, trust_remote_code=True)


# ---------------------------------------------------------------------- World
@pytest.mark.parametrize("backend", ["sync", "auto"])
def test_world_over_a_hub_env_records_the_commit(hub: FakeHub, backend: str) -> None:
    commit = hub.add(REPO, {"env.py": ENV})
    with swm.World(f"hub:{REPO}", 3, (6, 6), trust_remote_code=True, goal_conditioned=False, backend=backend) as world:
        world.set_policy(RandomPolicy(seed=0))
        results = world.evaluate(episodes=5, seed=0)
    assert results["episode_lengths"].tolist() == [3] * 5
    origin = results.to_json()["protocol"]["env"]["hub"]
    assert (origin["repo_id"], origin["path"], origin["revision"], origin["commit"]) == (REPO, "env.py", None, commit)
    assert len(origin["sha256"]) == 64


def test_classes_of_the_hub_reach_worker_processes(hub: FakeHub) -> None:
    lazy = ENV.replace("return SyncVectorEnv(", "return LazyVectorEnv(")
    hub.add(REPO, {"env.py": "from stable_worldmodel.lerobot import LazyVectorEnv\n" + lazy})
    options = {"trust_remote_code": True, "goal_conditioned": False, "backend": "process", "workers": 2}
    with swm.World(f"hub:{REPO}", 2, (6, 6), **options) as world:
        world.set_policy(RandomPolicy(seed=0))
        assert world.evaluate(episodes=3, seed=0)["episode_lengths"].tolist() == [3] * 3


def test_world_over_a_hub_env_pins_a_commit(hub: FakeHub) -> None:
    old = hub.add(REPO, {"env.py": ENV.replace(">= 3", ">= 2")}, "old")
    hub.add(REPO, {"env.py": ENV})
    with swm.World(f"hub:{REPO}@{old}", trust_remote_code=True, add_pixels=False, goal_conditioned=False) as world:
        world.set_policy(RandomPolicy(seed=0))
        assert world.evaluate(episodes=1, seed=0)["episode_lengths"].tolist() == [2]


def test_world_needs_to_be_told_which_task(hub: FakeHub) -> None:
    both = (
        ENV
        + "\none = make_env\ndef make_env(n_envs, use_async_envs):\n    return {'s': {0: one(n_envs), 7: one(n_envs)}}"
    )
    hub.add(REPO, {"env.py": both})
    options = {"trust_remote_code": True, "add_pixels": False, "goal_conditioned": False}
    with pytest.raises(ContractError, match=r"2 tasks.*#s/0, #s/7"):
        swm.World(f"hub:{REPO}", **options)
    with swm.World(f"hub:{REPO}#7", 2, **options) as world:
        world.reset(seed=0)
        assert world.num_envs == 2
    with pytest.raises(ContractError, match="2 tasks, 0 of which"):
        swm.World(f"hub:{REPO}#s/3", **options)


def test_constructor_arguments_have_no_meaning_for_hub_envs(hub: FakeHub) -> None:
    with pytest.raises(ContractError, match=r"\['render_target'\].*built already"):
        swm.World(f"hub:{REPO}", 1, (6, 6), trust_remote_code=True, render_target=True)
    assert hub.requests == []


# ---------------------------------------------------------------------- the example
def test_example_is_a_hub_env(hub: FakeHub, tmp_path) -> None:
    source = (Path(__file__).parents[2] / "examples" / "hub_env.py").read_text()
    hub.add("you/two-room", {"env.py": source})
    envs = make_env("you/two-room", 2, hub_cache_dir=tmp_path, trust_remote_code=True)
    assert list(envs) == ["two_room"]
    assert list(envs["two_room"]) == [0, 1]
    observation, _ = envs["two_room"][1].reset(seed=0)
    assert observation["pixels"].shape == (2, 96, 96, 3)
    assert "three" in envs["two_room"][1].call("task_description")[0]
    close_envs(envs)
    one = make_env(HubEnvConfig(hub_path="you/two-room", task="1"), hub_cache_dir=tmp_path, trust_remote_code=True)
    assert list(one["two_room"]) == [0]
    close_envs(one)
    with swm.World("hub:you/two-room#1", 2, trust_remote_code=True) as world:
        world.set_policy(RandomPolicy(seed=0))
        world.reset(seed=0)
        world.step()
        assert world.infos["pixels"].shape == (2, 1, 96, 96, 3)
        assert np.asarray(world.infos["step_idx"]).tolist() == [[1], [1]]
