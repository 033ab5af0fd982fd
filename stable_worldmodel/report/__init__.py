"""The HTML report of a run: plain values in, one self-contained file out."""

from stable_worldmodel.report.html import render_report, write_report
from stable_worldmodel.report.model import Comparison, DatasetCard, RunReport, Video

__all__ = ["Comparison", "DatasetCard", "RunReport", "Video", "render_report", "write_report"]
