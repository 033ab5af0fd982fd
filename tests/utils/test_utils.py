"""Helpers shared by all layers."""

import importlib.util
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stable_worldmodel.utils import flatten_dict, get_in, pretraining
from stable_worldmodel.utils.provenance import package_versions, provenance
from stable_worldmodel.utils.statistics import wilson_interval


def test_nested_mappings_become_dotted_names():
    assert flatten_dict({"a": {"b": 1, "c": {}}, 2: 3}) == {"a.b": 1, "2": 3}
    assert flatten_dict({"a": {"b": 1}, "a/b": 2}, sep="/") == {"a/b": 2}
    assert flatten_dict({"x": 1}, parent_key="p") == {"p.x": 1}


def test_get_in_names_the_prefix_that_failed():
    nested = {"a": {"b": 1}}
    assert get_in(nested, ["a", "b"]) == 1
    assert get_in(nested, ()) is nested
    with pytest.raises(KeyError, match=r"a\.x"):
        get_in(nested, ["a", "x", "y"])


def test_wilson_interval_matches_published_values():
    # Newcombe, Statistics in Medicine 17 (1998), table I: 81/263 gives 0.2553..0.3662, 0/20 gives 0..0.1611.
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_interval_contains_the_estimate(counts):
    successes, total = counts
    low, high = wilson_interval(successes, total)
    assert 0 <= low <= successes / total + 1e-12
    assert successes / total - 1e-12 <= high <= 1


def test_pretraining_passes_overrides_as_separate_arguments(tmp_path):
    script = tmp_path / "my script.py"
    script.write_text("import sys, pathlib; pathlib.Path(sys.argv[1]).write_text('|'.join(sys.argv[2:]))")
    out = tmp_path / "args.txt"
    assert pretraining(script, "two rooms", "model", dump_object=False, args=f"{out} lr=0.1") == 0
    assert out.read_text() == "lr=0.1|++dump_object=False|dataset_name=two rooms|output_model_name=model"


def test_pretraining_reports_a_missing_script_and_a_failing_one(tmp_path):
    with pytest.raises(ValueError, match="does not exist"):
        pretraining(tmp_path / "none.py", "d", "m")
    (tmp_path / "fail.py").write_text("raise SystemExit(3)")
    with pytest.raises(SystemExit) as stop:
        pretraining(tmp_path / "fail.py", "d", "m")
    assert stop.value.code == 3


def test_provenance_is_complete():
    found = provenance()
    assert found["versions"]["python"] == sys.version.split()[0]
    assert {"git_revision", "platform", "cpu_count", "command"} <= found.keys()
    assert "stable-worldmodel" in package_versions()


def test_provenance_has_the_version_of_a_simulator_and_does_not_import_it():
    script = """if True:
        import sys
        from stable_worldmodel.utils.provenance import package_versions
        print("mujoco" in package_versions(), "mujoco" in sys.modules)
    """
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(importlib.util.find_spec("mujoco") is not None), "False"]
