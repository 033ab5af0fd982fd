"""The HTML report of a run: plain values in, one self-contained file out."""

from stable_worldmodel.report.cards import dataset_card
from stable_worldmodel.report.evaluations import contrasts_of, evaluation_of
from stable_worldmodel.report.grid import read_grid
from stable_worldmodel.report.html import render_report, write_report
from stable_worldmodel.report.model import (
    Cell,
    Comparison,
    DatasetCard,
    Evaluation,
    HeatMap,
    RunReport,
    Video,
)
from stable_worldmodel.report.sources import read_report

__all__ = [
    "Cell",
    "Comparison",
    "DatasetCard",
    "Evaluation",
    "HeatMap",
    "RunReport",
    "Video",
    "contrasts_of",
    "dataset_card",
    "evaluation_of",
    "read_grid",
    "read_report",
    "render_report",
    "write_report",
]
