"""Dict: names, order, nested values, partial resampling, all-or-nothing assignment, seeding."""

from __future__ import annotations

import pickle

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_spaces import ROOM_NAMES, at, equal, room

from stable_worldmodel.errors import ContractError
from stable_worldmodel.spaces import Box, Dict, Discrete, SamplingError


def is_unequal(value) -> bool:
    return value["a"] != value["b"]


class TestDict:
    def test_keeps_the_given_order(self):
        space = room()
        assert space.names() == ROOM_NAMES
        assert list(space.value) == list(space.sample()) == list(space.spaces) == ["wall", "agent", "door"]

    def test_sampling_order_lists_parents_before_their_children(self):
        space = room(sampling_order=["door", "agent", "wall"])
        assert space.sampling_order == [
            "door",
            "agent",
            "agent.radius",
            "agent.speed",
            "wall",
            "wall.axis",
            "wall.color",
        ]
        assert space.names() == ROOM_NAMES

    def test_sampling_order_is_completed_with_a_warning(self, caplog):
        space = room(sampling_order=["door"])
        assert [name for name in space.sampling_order if "." not in name] == ["door", "wall", "agent"]
        assert "'wall', 'agent'" in caplog.text

    @pytest.mark.parametrize("order", [["door", "dor"], ["door", "door"]])
    def test_sampling_order_with_unknown_or_duplicate_keys_is_an_error(self, order):
        with pytest.raises(ContractError, match="sampling_order"):
            room(sampling_order=order)

    @pytest.mark.parametrize("key", ["a.b", "", "all", 3])
    def test_keys_must_be_able_to_be_part_of_a_dotted_name(self, key):
        with pytest.raises(ContractError, match="key"):
            Dict({key: Discrete(2)})

    def test_value_is_built_from_the_children(self):
        space = room()
        space["wall"]["axis"].set_value(0)
        assert space.value["wall"]["axis"] == 0
        space.reset()
        assert equal(space.value, space.init_value)
        assert space.value["wall"]["axis"] == 1

    def test_init_value_overrides_the_children(self):
        space = room(init_value={"wall": {"axis": 0}, "agent.speed": 2, "door": [0, 1]})
        assert space.value["wall"]["axis"] == space["wall"]["axis"].init_value == 0
        assert space.init_value["agent"]["speed"] == 2
        space.sample()
        space.reset()
        assert space.value["door"].tolist() == [0, 1]

    @pytest.mark.parametrize("wrong", [{"wal": 1}, {"wall": {"axes": 1}}, {"door": [99, 0]}, {"wall": 3}])
    def test_init_value_that_does_not_fit_is_an_error(self, wrong):
        with pytest.raises(ContractError, match=r"wal|door"):
            room(init_value=wrong)

    def test_a_child_without_default_contributes_a_sample(self):
        space = Dict({"a": Discrete(5), "b": Dict({"c": Box(0, 1)})}, seed=0)
        assert space.value == {"a": None, "b": {"c": None}}
        assert space.violations() == ["a", "b.c"]
        assert space.init_value in space
        space.reset()
        assert space.value in space
        assert space.check()

    def test_contains_needs_all_keys_and_ignores_others(self):
        space = Dict({"a": Discrete(3), "b": Discrete(3)}, constrain_fn=is_unequal)
        assert {"a": 0, "b": 1, "c": "more"} in space
        assert {"a": 0} not in space
        assert {"a": 0, "b": 3} not in space
        assert {"a": 1, "b": 1} not in space
        assert [0, 1] not in space

    def test_constraint_holds_for_every_sample(self):
        space = Dict({"a": Discrete(2), "b": Discrete(2)}, constrain_fn=is_unequal, seed=0)
        assert all(is_unequal(space.sample()) for _ in range(50))
        assert is_unequal(space.value)

    def test_failed_sampling_restores_all_values(self):
        space = room()
        before = space.value
        space.constrain_fn = lambda value: False
        with pytest.raises(RuntimeError, match="constrain_fn"):
            space.sample(max_tries=3)
        assert equal(space.value, before)

    def test_failed_sampling_names_the_factor(self):
        space = room()
        space["agent"]["speed"].constrain_fn = lambda value: False
        for draw in (space.sample, lambda: space.update(["agent.speed"]), lambda: space.update(["agent"])):
            with pytest.raises(SamplingError, match=r"^agent\.speed: ") as caught:
                draw()
            assert pickle.loads(pickle.dumps(caught.value)).name == "agent.speed"

    def test_constraints_see_the_siblings_drawn_before(self):
        low = Discrete(10)
        high = Discrete(10, constrain_fn=lambda value: value >= low.value)
        space = Dict({"high": high, "low": low}, sampling_order=["low", "high"], seed=0)
        for _ in range(50):
            drawn = space.sample()
            assert drawn["high"] >= drawn["low"]

    def test_masks_are_split_by_key(self):
        space = Dict({"a": Discrete(3), "b": Dict({"c": Discrete(3)}), "d": gym.spaces.Discrete(3)}, seed=0)
        only = [np.eye(3, dtype=np.int8)[i] for i in range(3)]
        mask = {"a": only[2], "b": {"c": only[1]}, "d": only[0]}
        expected = {"a": 2, "b": {"c": 1}, "d": 0}
        assert space.sample(mask) == space.sample(mask=mask) == expected
        assert space.sample({"a": only[1]})["a"] == 1
        with pytest.raises(ContractError, match="mask"):
            space.sample({"e": only[0]})
        with pytest.raises(ContractError, match="mask"):
            space.sample(only[0])

    def test_check_includes_the_own_constraint_and_names_the_culprit(self, caplog):
        pair = Dict({"a": Discrete(3, init_value=1), "b": Discrete(3, init_value=1)}, constrain_fn=is_unequal)
        space = Dict({"pair": pair})
        assert not pair.check()
        assert pair.violations() == ["all"]
        assert not space.check(debug=True)
        assert "pair: value" in caplog.text
        space.update(space.violations())
        assert space.check()

    def test_tracks_the_values_of_plain_gymnasium_children(self):
        plain = {"n": gym.spaces.Discrete(5), "x": gym.spaces.Box(0, 1, (2,)), "t": gym.spaces.Text(3)}
        space = Dict(plain, init_value={"n": 2, "x": [0.5, 1]}, seed=0)
        assert space.value["n"] == 2
        assert space.value["x"].dtype == np.float32
        drawn = space.sample()
        assert equal(space.value, drawn)
        space.update(["x"])
        assert not equal(space.value["x"], drawn["x"])
        assert space.value["t"] == drawn["t"]
        space.set_value({"t": "abc"})
        assert space.value["t"] == "abc"
        assert space.check()
        with pytest.raises(ContractError, match="n: 9"):
            space.set_value({"n": 9})
        assert space.names() == ["n", "x", "t"]

    def test_a_child_can_be_added_and_replaced(self):
        space = room()
        space["light"] = Discrete(3, init_value=1)
        space["door"] = Discrete(4, init_value=2)
        assert space.names()[-2:] == ["door", "light"]
        assert space.value["door"] == 2
        assert space.sampling_order[-1] == "light"

    def test_to_str_indents_by_depth(self):
        lines = room().to_str().splitlines()
        assert lines[0] == "wall"
        assert lines[1].startswith("  axis: Discrete(2) = 1")
        assert lines[-1].startswith("door: MultiDiscrete")
        assert len(lines) == 7


class TestUpdate:
    @settings(max_examples=30)
    @given(st.lists(st.sampled_from([*ROOM_NAMES, "wall", "agent"])), st.integers(0, 2**40))
    def test_resamples_exactly_the_named_factors(self, names, seed):
        space, other = room(), room()
        space.seed(seed)
        space.update(names)
        other.seed(seed)
        everything = other.sample()
        for name in ROOM_NAMES:
            named = name in names or name.split(".")[0] in names
            source = everything if named else other.init_value
            assert equal(at(space.value, name), at(source, name))

    def test_all_covers_everything_wherever_it_stands(self):
        space, other = room(seed=3), room(seed=3)
        space.update({"door", "all"})
        assert equal(space.value, other.sample())

    def test_follows_the_sampling_order_and_draws_a_covered_factor_once(self):
        drawn = []

        def noted(key):
            return Discrete(5, constrain_fn=lambda value: drawn.append(key) or True)

        group = Dict({"a": noted("a"), "b": noted("b")}, sampling_order=["b", "a"])
        space = Dict({"group": group, "c": noted("c")}, sampling_order=["c", "group"])
        space.update(["group.a", "group", "c"])
        assert drawn == ["c", "b", "a"]

    def test_satisfies_the_constraints_of_all_groups_above(self):
        pair = Dict({"a": Discrete(4, init_value=0), "b": Discrete(4, init_value=1)}, constrain_fn=is_unequal)
        space = Dict({"pair": pair, "c": Discrete(4, init_value=3)}, constrain_fn=lambda v: v["pair"]["a"] != v["c"])
        for seed in range(30):
            space.seed(seed)
            space.update(["pair.a"])
            assert space.check()

    def test_draws_fit_to_the_fixed_values(self):
        pair = Dict({"a": Discrete(2, init_value=0), "b": Discrete(2, init_value=1)}, constrain_fn=is_unequal)
        for seed in range(10):
            pair.seed(seed)
            pair.update(["all"], fixed={"a": 1})
            assert pair.value == {"a": 1, "b": 0}
        with pytest.raises(ContractError, match="a: 7"):
            pair.update(["b"], fixed={"a": 7})
        assert pair.value == {"a": 1, "b": 0}

    def test_that_cannot_succeed_restores_the_values(self):
        space = room()
        space.constrain_fn = lambda value: False
        with pytest.raises(ContractError, match="1000 draws"):
            space.update(["wall"])
        assert equal(space.value, space.init_value)
        space.update([])

    @pytest.mark.parametrize("name", ["agent.radus", "agnt", "door.x", "wall..axis", 3])
    def test_unknown_names_are_errors(self, name):
        space = room()
        with pytest.raises(ContractError, match="factor"):
            space.update(["door", name])
        assert equal(space.value, space.init_value)

    def test_unknown_names_are_answered_with_close_ones(self):
        with pytest.raises(ValueError, match=r"'agent\.radus'.*did you mean agent\.radius"):
            room().update(["agent.radus"])

    def test_one_string_is_no_list_of_names(self):
        with pytest.raises(ContractError, match=r"\['door'\]"):
            room().update("door")


class TestSetValue:
    def test_takes_dotted_names_and_nested_mappings(self):
        space = room()
        space.set_value({"agent.radius": 9, "wall": {"color": [4, 5, 6]}, "door": (1, 2)})
        assert space.value["agent"]["radius"] == np.float32(9)
        assert equal(space.value["wall"]["color"], np.array([4, 5, 6], np.uint8))
        assert space.value["agent"]["speed"] == 5
        assert space.init_value["agent"]["radius"] == 7

    @pytest.mark.parametrize("wrong", [{"wal.axis": 0}, {"agent.radius": 99}, {"wall": 0}, {"wall.color": [0, 0]}])
    @pytest.mark.parametrize("setter", ["set_value", "set_init_value"])
    def test_is_all_or_nothing(self, wrong, setter):
        space = room()
        with pytest.raises(ContractError, match=next(iter(wrong))):
            getattr(space, setter)({"door": [0, 0], **wrong})
        assert equal(space.value, room().value)
        assert equal(space.init_value, room().init_value)

    def test_needs_a_mapping(self):
        with pytest.raises(ContractError, match="mapping"):
            room().set_value([("door", 1)])

    def test_tests_constraints_after_everything_is_set(self):
        low = Discrete(10, init_value=1)
        high = Discrete(10, init_value=2, constrain_fn=lambda value: value > low.value)
        space = Dict({"high": high, "low": low}, constrain_fn=lambda value: value["high"] < 9)
        space.set_value({"high": 8, "low": 7})
        for wrong, message in (({"high": 5}, "high: 5"), ({"high": 9}, "all: ")):
            with pytest.raises(ContractError, match=message):
                space.set_value(wrong)
        assert space.value == {"high": 8, "low": 7}

    def test_defaults_are_tested_against_each_other_and_leave_values_alone(self):
        low = Discrete(10, init_value=1)
        high = Discrete(10, init_value=2, constrain_fn=lambda value: value > low.value)
        space = Dict({"low": low, "high": high})
        space.set_value({"low": 3, "high": 4})
        space.set_init_value({"low": 7, "high": 8})
        with pytest.raises(ContractError, match="high"):
            space.set_init_value({"high": 5})
        assert space.value == {"low": 3, "high": 4}
        space.reset()
        assert space.value == {"low": 7, "high": 8}


class TestSeeding:
    @settings(max_examples=30)
    @given(st.integers(0, 2**70))
    def test_same_seed_same_samples_and_distinct_child_seeds(self, seed):
        space, other = room(), room()
        seeds = space.seed(seed)
        assert seeds == other.seed(seed)
        flat = [*seeds["wall"].values(), *seeds["agent"].values(), seeds["door"]]
        assert len(set(flat)) == len(flat) == 5
        for _ in range(3):
            assert equal(space.sample(), other.sample())

    def test_equal_children_draw_different_samples(self):
        space = Dict({key: Box(0, 1) for key in "abc"}, seed=0)
        assert len({float(value[0]) for value in space.sample().values()}) == 3

    def test_neighbouring_seeds_share_no_child_seed(self):
        seeds = [seed for start in range(100) for seed in Dict({key: Discrete(2) for key in "ab"}).seed(start).values()]
        assert len(set(seeds)) == 200

    def test_a_factor_keeps_its_stream_when_others_join(self):
        small, large = Dict({"a": Box(0, 1)}), Dict({"b": Box(0, 1), "a": Box(0, 1)})
        small.seed(4)
        large.seed(4)
        assert equal(small.sample()["a"], large.sample()["a"])

    def test_the_constructor_the_mapping_and_no_seed(self):
        assert equal(room(seed=1).sample(), room(seed=1).sample())
        space = Dict({"a": Box(0, 1), "b": gym.spaces.Box(0, 1)})
        space.seed({"a": 5, "b": 5})
        assert np.allclose(*space.sample().values())
        space.seed(None)
        assert not np.allclose(*space.sample().values())
        with pytest.raises(ContractError, match="keys"):
            space.seed({"a": 5})
