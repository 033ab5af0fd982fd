from __future__ import annotations

import math
from xml.etree import ElementTree

import pytest

from stable_worldmodel.errors import ContractError
from stable_worldmodel.report.plots import Curves, draw_curves, draw_plan_times, group_history


def test_splits_of_one_metric_share_a_plot_and_other_numbers_have_none() -> None:
    rows = [{"step": 0, "train/loss": 2.0, "lr": 0.1}, {"step": 5, "train/loss": 1.0, "val/loss": 1.5}]
    (loss,) = group_history(rows)
    assert loss.metric == "loss"
    assert loss.lines == {"train": ([0, 5], [2.0, 1.0]), "val": ([5], [1.5])}


def test_epoch_is_the_axis_when_a_row_has_no_step() -> None:
    (loss,) = group_history([{"epoch": 1, "val/loss": 2.0}, {"epoch": 2, "val/loss": math.nan}])
    assert (loss.x_label, loss.lines) == ("epoch", {"val": ([1], [2.0])})


def test_row_without_step_and_epoch_is_refused() -> None:
    with pytest.raises(ContractError, match="history row 1: expected the key 'step' or 'epoch'"):
        group_history([{"epoch": 1, "loss": 2.0}, {"loss": 1.0}])


@pytest.mark.parametrize("ys", [[3.0, 0.001], [-1.0, 5.0], [0.5]], ids=["log", "linear", "one point"])
def test_plot_is_valid_xml_without_mathtext(ys: list[float]) -> None:
    svg = draw_curves(Curves("$a_b$ <x>", "step", {"$train$": (list(range(len(ys))), ys), "val": ([0], [1.0])}))
    root = ElementTree.fromstring(svg)
    assert root.get("aria-label") == "$a_b$ <x> by step"
    text = "".join(root.itertext())
    assert "$train$" in text
    assert "mathdefault" not in text


@pytest.mark.parametrize("seconds", [[0.5], [0.5, 0.2, 0.9]])
def test_the_share_of_solves_rises_from_none_to_all(seconds: list[float]) -> None:
    root = ElementTree.fromstring(draw_plan_times({"cem": seconds}))
    line = next(path for path in root.iter() if "--series-1" in path.get("style", ""))
    heights = [float(number) for number in line.get("d", "").replace("M", "").replace("L", "").split()[1::2]]
    assert max(heights) - min(heights) > 100  # points, most of the height of the plot
