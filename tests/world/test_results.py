"""Results of evaluations: what they say, what a file of them holds, and how two of them are compared."""

import html.parser
import json
import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from stable_worldmodel.errors import ContractError, NotFoundError
from stable_worldmodel.policy import BasePolicy, RandomPolicy
from stable_worldmodel.utils.statistics import Estimate, bootstrap_mean, paired_difference_interval
from stable_worldmodel.world import Results, World
from stable_worldmodel.world.comparison import PairedComparison, compare

ENV = {"id": "toy/Walk-v0", "image_shape": [8, 8], "arguments": {"max_episode_steps": 100}}


def results_of(successes, returns=None, protocol=None, seeds="seeded", **extra):
    successes = np.array(successes, bool)
    n = len(successes)
    values = {
        "success_rate": 100.0 * successes.mean(),
        "episode_successes": successes,
        "seeds": np.arange(7, 7 + n) if isinstance(seeds, str) else seeds,
        "episode_count": n,
        "episode_lengths": np.arange(1, n + 1),
        "episode_returns": np.linspace(-1, 2, n) if returns is None else np.array(returns, float),
        **extra,
    }
    return Results(values, {"env": ENV, "policy": {"class": "Toy"}, "seed": 7, **(protocol or {})})


def dataset_protocol(**changes):
    items = {"dataset": "walk.h5", "episodes_idx": [0, 1, 2], "start_steps": [4, 5, 6], "goal_offset": 25}
    return {**items, "eval_budget": 50, **changes}


def strict_json(path):
    """The content of a file, refusing the NaN and Infinity that Python accepts and other parsers do not."""

    def refuse(literal):
        raise AssertionError(f"{path} holds {literal}")

    return json.loads(path.read_text(), parse_constant=refuse)


@pytest.fixture
def world():
    with World("toy/Walk-v0", 2, (8, 8), verbose=0) as world:
        world.set_policy(RandomPolicy(seed=0))
        yield world


class TestSummary:
    def test_has_the_mean_and_interval_of_every_quantity(self):
        results = results_of([1, 1, 0, 1], returns=[1.0, 2.0, 3.0, 4.0], distance=np.array([0.5, 0.25, 0.5, 1.0]))
        summary = results.summary()
        assert set(summary) == {"success_rate", "episode_returns", "episode_lengths", "distance"}
        assert summary["success_rate"].mean == results["success_rate"] == 75.0
        assert (summary["success_rate"].low, summary["success_rate"].high) == results.interval()
        assert summary["episode_returns"] == bootstrap_mean([1, 2, 3, 4])
        assert all(estimate.n == 4 for estimate in summary.values())

    def test_boolean_keys_are_percentages_and_other_shapes_and_kinds_are_left_out(self):
        extra = {"fell": np.array([True, False]), "state": np.zeros((2, 3)), "label": np.array(["a", "b"])}
        summary = results_of([0, 0], **extra).summary(confidence=0.8)
        assert summary["fell"].mean == 50.0
        assert summary["fell"].high > 80
        assert not {"state", "label", "seeds"} & set(summary)

    def test_one_episode_and_equal_returns_are_defined_without_warnings(self):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            one = results_of([1], returns=[2.5]).summary()["episode_returns"]
            equal = results_of([1, 0, 1], returns=[2.5] * 3).summary()["episode_returns"]
        assert (one.mean, one.n) == (2.5, 1)
        assert math.isnan(one.low)
        assert math.isnan(one.high)
        assert equal == Estimate(2.5, 2.5, 2.5, 3)


class TestDisplay:
    def test_text_has_the_rate_the_counts_and_both_means(self):
        lines = str(results_of([1, 1, 0, 1], returns=[1, 2, 3, 4])).splitlines()
        assert lines[0] == "success 75.0 % [30.1, 95.4] (3/4 episodes)"
        assert lines[1].startswith("return  2.5 [")
        assert lines[2].endswith("] steps")

    def test_success_by_termination_is_said(self):
        ending = results_of([1, 0], protocol={"success": "terminated"})
        assert str(ending).splitlines()[0].endswith("(1/2 episodes, success = terminated)")
        assert "success = terminated" in ending._repr_html_()
        assert "terminated" not in str(results_of([1, 0], protocol={"success": "is_success"}))
        mixed = results_of([1, 0], protocol={"success": "is_success, terminated"})
        assert "success = is_success, terminated" in str(mixed)

    def test_notebook_table_is_well_formed_complete_and_escaped(self):
        evil = "<script>alert(1)</script>"
        protocol = {"env": {"id": evil}, "policy": {"class": evil}}
        page = results_of([1, 0, 1], protocol=protocol, **{evil: np.array([1.0, 2.0, 3.0])})._repr_html_()
        tags = Tags()
        tags.feed(page)
        assert tags.open == []
        assert "script" not in tags.seen
        assert tags.seen["rect"] == 3
        assert 'aria-label="2 of 3 episodes succeeded"' in page
        assert "episode 1, seed 8: failure" in page
        assert page.count("&lt;script&gt;") == 3

    def test_notebook_colours_follow_the_page(self):
        page = results_of([1, 0])._repr_html_()
        assert "currentColor" in page
        assert "#" not in page
        assert "rgb" not in page

    def test_only_the_first_of_many_episodes_are_drawn(self):
        page = results_of(np.ones(600), seeds=None)._repr_html_()
        assert page.count("<rect") == 500
        assert "first 500 of 600" in page


class Tags(html.parser.HTMLParser):
    """Counts tags, and keeps those that are open."""

    def __init__(self):
        super().__init__()
        self.open, self.seen = [], {}

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        self.seen[tag] = self.seen.get(tag, 0) + 1

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def arrays_of_any_kind():
    kinds = st.one_of(
        hnp.boolean_dtypes(),
        hnp.integer_dtypes(),
        hnp.unsigned_integer_dtypes(),
        hnp.floating_dtypes(sizes=(16, 32, 64)),
        hnp.unicode_string_dtypes(),
    )
    shapes = hnp.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=3).map(lambda tail: (3, *tail))
    return kinds.flatmap(lambda dtype: hnp.arrays(dtype, shapes))


class TestFiles:
    def test_a_saved_run_comes_back_as_it_was(self, world, tmp_path):
        results = world.evaluate(episodes=5, seed=3, eval_keys=["state", "label"])
        loaded = Results.load(results.save(tmp_path / "sub" / "run.json"))
        assert loaded.keys() == results.keys()
        for key, value in results.items():
            np.testing.assert_array_equal(loaded[key], value)
            assert type(loaded[key]) is type(value)
            assert getattr(loaded[key], "dtype", None) == getattr(value, "dtype", None)
        assert str(loaded) == str(results)
        assert loaded.protocol == results.protocol

    def test_the_file_says_what_repeats_the_run(self, world, tmp_path):
        saved = strict_json(world.evaluate(episodes=5, seed=3).save(tmp_path / "run.json"))
        assert saved["protocol"]["env"]["id"] == "toy/Walk-v0"
        assert saved["values"]["seeds"] == [3, 4, 5, 6, 7]
        assert saved["summary"]["success_rate"]["n"] == 5
        assert saved["versions"]["numpy"] == np.__version__
        assert {"git_revision", "platform", "command"} <= saved.keys()

    def test_saving_again_keeps_the_origin_of_the_run(self, tmp_path):
        path = results_of([1, 0]).save(tmp_path / "run.json")
        document = json.loads(path.read_text())
        document["platform"] = "another machine"
        path.write_text(json.dumps(document))
        again = strict_json(Results.load(path).save(tmp_path / "again.json"))
        assert again == document

    def test_values_that_are_not_finite_are_strict_json_and_come_back(self, tmp_path):
        results = results_of([1, 0, 1], returns=[np.nan, np.inf, -np.inf], protocol={"noise": np.inf, "level": np.nan})
        path = results.save(tmp_path / "run.json")
        saved = strict_json(path)
        assert saved["values"]["episode_returns"] == [None, "inf", "-inf"]
        assert saved["summary"]["episode_returns"] == {"mean": None, "low": None, "high": None, "n": 3}
        np.testing.assert_array_equal(Results.load(path)["episode_returns"], [np.nan, np.inf, -np.inf])

    @settings(max_examples=60, deadline=None)
    @given(arrays_of_any_kind(), st.text(min_size=1))
    def test_arrays_of_any_shape_and_dtype_come_back_through_the_text(self, array, name):
        results = results_of([1, 0, 1])
        results[name] = array
        results.provenance = {"platform": "test"}
        loaded = Results.from_json(json.loads(json.dumps(results.to_json(), allow_nan=False)))
        assert loaded[name].dtype == array.dtype
        np.testing.assert_array_equal(loaded[name], array)

    def test_names_of_sections_can_be_eval_keys(self, tmp_path):
        results = results_of([1, 0], platform=np.array([1.0, 2.0]), protocol_=np.array([3, 4]))
        loaded = Results.load(results.save(tmp_path / "run.json"))
        assert loaded["platform"].tolist() == [1.0, 2.0]
        assert isinstance(loaded.provenance["platform"], str)

    def test_objects_come_back_as_plain_values_and_missing_seeds_stay_missing(self, tmp_path):
        ragged = np.empty(2, object)
        ragged[:] = [np.arange(2), np.array([[1.5, np.inf]])]
        notes = np.array([None, {"a": 1}], object)
        times = np.array(["2024-01-01", "2024-01-02"], "datetime64[D]")
        results = results_of([1, 0], seeds=None, ragged=ragged, notes=notes, times=times)
        loaded = Results.load(results.save(tmp_path / "run.json"))
        assert loaded["ragged"].tolist() == [[0, 1], [[1.5, "inf"]]]
        assert loaded["notes"].tolist() == [None, {"a": 1}]
        assert loaded["times"].tolist() == ["2024-01-01", "2024-01-02"]
        assert loaded["seeds"] is None

    def test_a_failed_write_leaves_the_old_file(self, tmp_path, monkeypatch):
        path = results_of([1, 0]).save(tmp_path / "run.json")
        before = path.read_bytes()

        def full_disk(self, data):
            raise OSError("no space left")

        monkeypatch.setattr("pathlib.Path.write_bytes", full_disk)
        with pytest.raises(OSError, match="no space"):
            results_of([1, 1]).save(path)
        assert path.read_bytes() == before
        assert [entry.name for entry in tmp_path.iterdir()] == ["run.json"]

    def test_other_files_are_refused_by_name(self, tmp_path):
        with pytest.raises(NotFoundError, match=r"none\.json"):
            Results.load(tmp_path / "none.json")
        for text in ("{", "[]", "{}", '{"format": "stable_worldmodel.results", "format_version": 1}'):
            (tmp_path / "other.json").write_text(text)
            with pytest.raises(ContractError, match=r"other\.json"):
                Results.load(tmp_path / "other.json")
        path = results_of([1, 0]).save(tmp_path / "run.json")
        document = json.loads(path.read_text())
        path.write_text(json.dumps({**document, "format_version": 2}))
        with pytest.raises(ContractError, match="expected 1"):
            Results.load(path)
        path.write_text(json.dumps({**document, "values": {}}))
        with pytest.raises(ContractError, match=r"run\.json"):
            Results.load(path)


class Steer(BasePolicy):
    """Always the same action."""

    type = "steer"

    def __init__(self, action):
        super().__init__(action=action)

    def get_action(self, obs, **kwargs):
        return np.full((self.env.num_envs, 1), self.action, np.float32)


class TestComparison:
    def test_counts_pairs_and_agrees_with_its_parts(self):
        a = results_of([1, 1, 1, 0, 1, 0], returns=[3, 3, 3, 3, 3, 3])
        b = results_of([1, 0, 0, 1, 0, 0], returns=[1, 2, 3, 1, 2, 3])
        found = a.compare(b)
        assert found == compare(a, b)
        assert (found.both, found.only_a, found.only_b, found.neither, found.n) == (1, 3, 1, 1, 6)
        assert found.difference == pytest.approx(a["success_rate"] - b["success_rate"])
        low, high = paired_difference_interval(3, 1, 6)
        assert (found.low, found.high) == pytest.approx((100 * low, 100 * high))
        assert found.p_value == pytest.approx(2 * 5 / 16)  # two-sided, 1 of 4 or fewer heads
        assert found.returns == bootstrap_mean([2, 1, 0, 2, 1, 0])

    def test_is_printable_and_strict_json(self):
        found = results_of([1, 1, 0], returns=[1, np.nan, 2]).compare(results_of([0, 0, 0]), confidence=0.9)
        text = str(found)
        assert "+66.7 points" in text
        assert "at 90 %" in text
        assert "only a 2, only b 0" in text
        document = json.loads(json.dumps(found.to_json(), allow_nan=False))
        assert document["returns"] == {"mean": None, "low": None, "high": None, "n": 3}
        assert document["confidence"] == 0.9

    def test_is_frozen_and_has_no_returns_where_there_are_none(self):
        a, b = results_of([1, 0]), results_of([0, 0])
        del a["episode_returns"]
        found = a.compare(b)
        assert isinstance(found, PairedComparison)
        assert found.returns is None
        with pytest.raises(AttributeError):
            found.n = 3

    @settings(max_examples=50, deadline=None)
    @given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=30))
    def test_mirrors_when_the_sides_swap(self, pairs):
        a, b = (results_of(side) for side in zip(*pairs, strict=True))
        forth, back = a.compare(b), b.compare(a)
        assert forth.both + forth.only_a + forth.only_b + forth.neither == len(pairs)
        assert forth.difference == -back.difference
        assert (forth.low, forth.high) == pytest.approx((-back.high, -back.low), abs=1e-9)
        assert forth.low <= forth.difference <= forth.high
        assert forth.p_value == pytest.approx(back.p_value)

    def test_real_runs_of_two_policies_are_paired_whatever_the_number_of_envs(self, world, tmp_path):
        world.set_policy(Steer(1.0))
        a = world.evaluate(episodes=6, seed=0)
        with World("toy/Walk-v0", 3, (16, 16), verbose=0) as other:
            other.set_policy(Steer(-1.0))
            b = other.evaluate(episodes=6, seed=0)
        found = a.compare(Results.load(b.save(tmp_path / "b.json")))
        assert found.n == 6
        assert found.returns.mean == 0  # the reward of this env counts steps, whatever the actions

    def test_other_seeds_and_counts_are_refused(self):
        a = results_of([1, 0, 1])
        with pytest.raises(ContractError, match=r"seeds differs first at episode 1 \(8 in a, 9 in b\)"):
            a.compare(results_of([1, 0, 1], seeds=np.array([7, 9, 10])))
        with pytest.raises(ContractError, match="seeds has 3 entries in a and 2 in b"):
            a.compare(results_of([1, 0]))

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"env": {**ENV, "id": "toy/Coin-v0"}}, "toy/Coin-v0"),
            ({"env": {**ENV, "arguments": {"max_episode_steps": 50}}}, "max_episode_steps is 100 in a and 50 in b"),
            ({"options": "{'variation': ['all']}"}, "options is None"),
            ({"success": "terminated"}, "the source of success is 'is_success' in a and 'terminated' in b"),
        ],
    )
    def test_other_protocols_are_refused_naming_what_differs(self, change, message):
        a = results_of([1, 0], protocol={"success": "is_success"})
        with pytest.raises(ContractError, match=message):
            a.compare(results_of([1, 0], protocol=change))

    def test_what_does_not_change_the_episodes_may_differ(self):
        drawn = {"env": {**ENV, "image_shape": [64, 64], "arguments": {"max_episode_steps": 100, "render_mode": "x"}}}
        other = results_of([1, 0], protocol={**drawn, "policy": {"class": "Other"}, "episodes": 2, "num_envs": 9})
        assert results_of([1, 0]).compare(other).n == 2
        # Where an env reports success only on some steps, its source depends on how the episodes ended.
        mixed = results_of([1, 0], protocol={"success": "is_success, terminated"})
        assert mixed.compare(results_of([1, 0], protocol={"success": "terminated"})).n == 2

    @pytest.mark.parametrize("seeds", [None, np.array([-1, -1, -1]), np.array([7, -1, 9])])
    def test_unseeded_episodes_are_refused(self, seeds):
        with pytest.raises(ContractError, match="unseeded"):
            results_of([1, 0, 1], seeds=seeds).compare(results_of([0, 0, 1], seeds=seeds))

    @pytest.mark.parametrize("seeds", [None, np.array([-1, -1, -1]), np.array([3, 3, 8])])
    def test_a_dataset_pairs_by_its_starts_and_goals(self, seeds):
        a = results_of([1, 0, 1], protocol=dataset_protocol(), seeds=seeds)
        assert a.compare(results_of([0, 0, 1], protocol=dataset_protocol(), seeds=seeds)).n == 3

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"start_steps": [4, 9, 6]}, r"start_steps differs first at episode 1 \(5 in a, 9 in b\)"),
            ({"episodes_idx": [0, 1, 3]}, "episodes_idx differs first at episode 2"),
            ({"goal_offset": 50}, "goal_offset is 25 in a and 50 in b"),
            ({"eval_budget": 100}, "eval_budget is 50 in a and 100 in b"),
            ({"dataset": "other.h5"}, "other.h5"),
        ],
    )
    def test_other_starts_goals_and_budgets_are_refused(self, change, message):
        a = results_of([1, 0, 1], protocol=dataset_protocol(), seeds=None)
        with pytest.raises(ContractError, match=message):
            a.compare(results_of([1, 0, 1], protocol=dataset_protocol(**change), seeds=None))

    def test_a_run_on_a_dataset_is_not_paired_with_one_without(self):
        with pytest.raises(ContractError, match=r"dataset is 'walk\.h5' in a and None in b"):
            results_of([1, 0, 1], protocol=dataset_protocol()).compare(results_of([1, 0, 1]))
