"""Craftax: the contract of all envs, and what is the package's. Its programs take minutes to compile on a CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import pytest
from envs.contract import EnvContract, columns

pytest.importorskip("jax", reason="needs JAX: pip install 'stable-worldmodel[craftax]'")
pytest.importorskip("craftax.craftax_env", reason="needs craftax: pip install 'stable-worldmodel[craftax]'")

import jax
from craftax import craftax_env
from craftax.craftax_classic import constants
from craftax.craftax_classic.constants import BlockType
from craftax.environment_base.util import load_compressed_pickle

from stable_worldmodel.envs.craftax.program import _load_textures
from stable_worldmodel.errors import ContractError, MissingKeyError
from stable_worldmodel.utils import flatten_dict

pytestmark = pytest.mark.slow


class TestClassicPixels(EnvContract):
    id = "swm/CraftaxClassicPixels-v1"
    native_size = (63, 63)
    revealing: ClassVar[dict[str, Any]] = {"mobs.zombie_chance": [0.3], "world.day_length": 30}
    inert: ClassVar[dict[str, str]] = dict.fromkeys(
        ("mobs.skeleton_health", "mobs.skeleton_chance"), "shows in caves only, see below"
    )

    def actions(self, env: Any, count: int = 40) -> list[Any]:
        return super().actions(env, count)

    def test_a_restored_row_goes_on_as_it_was_recorded(self) -> None:
        env, other = self.make(), self.make()
        rows = self.record(env, seed=8, options={"variation": ["all"]})
        factors = {f"variation.{name}": value for name, value in flatten_dict(env.variation_space.value).items()}
        for start in (0, 7):
            options = other.reset_options_from_dataset({**columns(rows[start]), **factors}, {})
            observation, _ = other.reset(seed=99, options=options)
            np.testing.assert_allclose(observation, rows[start]["observation"], atol=1e-6)  # of another program
            for action, row in zip(self.actions(other)[start:], rows[start + 1 :], strict=True):
                observation, reward, terminated, _, info = other.step(action)
                np.testing.assert_array_equal(observation, row["observation"])
                np.testing.assert_array_equal(info["state"], row["state"])
                np.testing.assert_array_equal(other.render(), row["pixels"])
                assert (reward, terminated) == (row["reward"], row["terminated"])

    def test_default_episodes_are_the_packages_to_the_last_bit(self) -> None:
        env = self.make()
        env.reset(seed=1, options={"variation": ["all"]})  # leaves no trace
        observation, _ = env.reset(seed=5)
        theirs = craftax_env.make_craftax_env_from_name(env.env_name, auto_reset=False)
        params, chain = theirs.default_params, jax.random.PRNGKey(5)
        chain, key = jax.random.split(chain)
        expected, state = theirs.reset(key, params)
        np.testing.assert_array_equal(observation, expected)
        for action in self.actions(env, 50):
            observation, reward, terminated, _, info = env.step(action)
            chain, key = jax.random.split(chain)
            expected, state, wanted, done, _ = theirs.step(key, state, int(action), params)
            np.testing.assert_array_equal(observation, expected)
            np.testing.assert_array_equal(info["achievements"], np.asarray(state.achievements))
            assert (reward, terminated) == (float(wanted), bool(done))

    def test_a_missing_column_is_named(self) -> None:
        with pytest.raises(MissingKeyError, match="state"):
            self.make().reset_options_from_dataset({}, {})

    def test_bad_actions_and_states_are_refused(self) -> None:
        env = self.make()
        env.reset(seed=0)
        with pytest.raises(ContractError, match="action"):
            env.step(99)
        with pytest.raises(ContractError, match="state"):
            env.reset(options={"state": np.zeros(8, np.uint8)})

    def test_states_can_be_left_out_of_the_rows(self) -> None:
        env = gym.make(self.id, restorable=False, disable_env_checker=True).unwrapped
        assert "state" not in env.reset(seed=0)[1]


class TestClassicSymbolic(TestClassicPixels):
    id = "swm/CraftaxClassicSymbolic-v1"


class TestPixels(TestClassicPixels):
    id = "swm/CraftaxPixels-v1"
    native_size = (130, 110)
    revealing: ClassVar[dict[str, Any]] = {}
    inert: ClassVar[dict[str, str]] = {}

    def actions(self, env: Any, count: int = 60) -> list[Any]:
        return super().actions(env, count)


class TestSymbolic(TestPixels):
    id = "swm/CraftaxSymbolic-v1"


def test_skeletons_of_a_cave_follow_their_factors() -> None:
    env = gym.make("swm/CraftaxClassicSymbolic-v1", disable_env_checker=True).unwrapped
    found = []
    for chance, health in ((0.0, 3), (1.0, 3), (1.0, 7)):
        values = {"mobs.skeleton_chance": [chance], "mobs.skeleton_health": health}
        env.reset(seed=0, options={"variation_values": values})
        paths = np.argwhere(np.asarray(env._state.map) == BlockType.PATH.value)
        env._state = env._state.replace(player_position=paths[len(paths) // 2].astype(np.int32))
        for _ in range(30):
            env.step(0)
        skeletons = env._state.skeletons
        found.append(np.asarray(skeletons.health)[np.asarray(skeletons.mask)])
    assert len(found[0]) < len(found[1])
    assert found[1].max() <= 3 < found[2].max()


def test_textures_of_an_interrupted_process_are_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "textures"
    file.write_bytes(b"half")

    def load() -> None:
        if file.exists():
            raise EOFError
        constants.save_compressed_pickle(str(file), {"size": 7})

    monkeypatch.setattr(constants, "TEXTURE_CACHE_FILE", str(file))
    monkeypatch.setattr(constants, "load_all_textures", load)
    monkeypatch.setattr(constants, "save_compressed_pickle", None)
    _load_textures("Craftax-Classic-Pixels-v1")
    assert load_compressed_pickle(str(file)) == {"size": 7}
