from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from stable_worldmodel.errors import NotFoundError
from stable_worldmodel.report import Comparison, RunReport, Video, render_report, write_report

VOID = {"meta", "br", "img", "link", "input"}


class Page(HTMLParser):
    """Collects text and attributes, and fails on a tag that is closed out of order."""

    def __init__(self, html: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_report_is_well_formed_and_shows_every_part(report: RunReport) -> None:
    page = Page(render_report(report))
    assert page.open == []
    for text in ("91.0 %", "91 of 100", "83.8 to 95.2 %", "0.0 to 3.7 %", "21,345", "43.2 MB", "12.3 s", "5 min 12 s"):
        assert text in page.text
    assert "2026-01-02 03:04 UTC" in page.text
    assert "revision unknown" in re.sub(r"\s+", " ", page.text)
    assert [tag for tag, _ in page.tags].count("svg") == 2  # loss (train and val), $odd$


def test_all_text_is_escaped(report: RunReport) -> None:
    page = Page(render_report(report))
    assert "script" not in {tag for tag, _ in page.tags}
    # title twice (head and heading), protocol, two captions, dataset name, command, config key
    assert page.text.count("<script>alert('x')</script>") == 8


def test_report_refers_to_nothing_outside_itself(report: RunReport) -> None:
    page = Page(render_report(report))
    links = [value for _, attrs in page.tags for name, value in attrs.items() if name in ("src", "href", "xlink:href")]
    assert links
    assert all(link.startswith(("data:", "#")) for link in links)
    assert sum(link.startswith("data:video/mp4;base64,") for link in links) == 2
    assert "@import" not in page.text
    assert not re.search(r"url\((?!#)", render_report(report))


def test_plots_take_their_colours_from_the_page(report: RunReport) -> None:
    svg = re.search(r"<svg.*?</svg>", render_report(report), re.DOTALL)
    assert svg is not None
    assert "var(--series-2)" in svg.group()
    assert not re.search(r"#0102\d\d", svg.group())


def test_the_same_report_gives_the_same_bytes(report: RunReport) -> None:
    assert render_report(report) == render_report(report)


def test_report_without_videos_and_history_has_no_empty_sections(report: RunReport) -> None:
    html = render_report(RunReport(**{**vars(report), "videos": [], "history": []}))
    assert "Rollouts" not in html
    assert "Training" not in html


def test_write_creates_folders_and_leaves_only_the_report(report: RunReport, tmp_path: Path) -> None:
    path = write_report(report, tmp_path / "deep" / "er" / "report.html")
    assert path.read_text(encoding="utf-8") == render_report(report)
    assert list(path.parent.iterdir()) == [path]


def test_failed_write_keeps_the_earlier_report(report: RunReport, tmp_path: Path) -> None:
    path = tmp_path / "out" / "report.html"
    write_report(report, path)
    before = path.read_bytes()
    missing = Video(tmp_path / "missing.mp4", label="pair 7", success=True)
    with pytest.raises(NotFoundError, match=r"missing\.mp4' of 'pair 7' does not exist"):
        write_report(RunReport(**{**vars(report), "videos": [missing]}), path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_comparison_is_in_percent_with_the_wilson_interval() -> None:
    c = Comparison.from_counts("random", 23, 100)
    assert (c.rate, round(c.low, 2), round(c.high, 2)) == (23.0, 15.84, 32.15)
