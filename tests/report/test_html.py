from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from stable_worldmodel.errors import ContractError, NotFoundError
from stable_worldmodel.report import Comparison, RunReport, Video, render_report, write_report

VOID = {"meta", "br", "wbr", "img", "link", "input"}


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
    assert "90 %" in page.text
    assert page.text.count("not run") == 3
    assert "2 of 2 videos are in this file" in re.sub(r"\s+", " ", page.text)
    titles = [attrs["title"] for tag, attrs in page.tags if tag == "i" and "title" in attrs]
    assert titles == ["episode 0, seed 7: success", "episode 1, seed 8: failure"]
    # time and costs of the planner, loss (train and val), $odd$
    assert [tag for tag, _ in page.tags].count("svg") == 4


def test_all_text_is_escaped(report: RunReport) -> None:
    page = Page(render_report(report))
    assert "script" not in {tag for tag, _ in page.tags}
    # title twice (head and heading), protocol, three captions, checkpoint, dataset name, command, config key
    assert page.text.count("<script>alert('x')</script>") == 10


def test_report_refers_to_nothing_outside_itself(report: RunReport) -> None:
    page = Page(render_report(report))
    links = [value for _, attrs in page.tags for name, value in attrs.items() if name in ("src", "href", "xlink:href")]
    assert links
    assert all(link.startswith(("data:", "#")) for link in links)
    assert sum(link.startswith("data:video/mp4;base64,") for link in links) == 2
    assert "@import" not in page.text
    assert not re.search(r"url\((?!#)", render_report(report))


def test_plots_take_their_colours_from_the_page(report: RunReport) -> None:
    drawn = "".join(re.findall(r"<svg.*?</svg>", render_report(report), re.DOTALL))
    assert "var(--series-2)" in drawn
    assert not re.search(r"#0102\d\d", drawn)


def test_the_same_report_gives_the_same_bytes(report: RunReport) -> None:
    assert render_report(report) == render_report(report)


def test_an_empty_report_has_no_empty_sections() -> None:
    page = Page(render_report(RunReport("nothing yet")))
    assert page.open == []
    for heading in ("Success", "Episodes", "Planner", "Training", "Dataset", "Time", "Seeds", "Versions", "Config"):
        assert heading not in page.text.replace("nothing yet", "")


def test_videos_are_embedded_until_the_limit_and_the_page_says_how_many(report: RunReport) -> None:
    first, second = report.evaluations[0].videos
    sizes = [Path(video.path).stat().st_size for video in (first, second)]
    html = render_report(replace(report, video_limit=max(sizes) + min(sizes) // 2))
    assert html.count("data:video/mp4;base64,") == 1
    text = re.sub(r"\s+", " ", Page(html).text)
    assert "1 of 2 videos are in this file" in text
    assert f"the others are in {Path(first.path).parent}" in text
    assert 'aria-label="pair 1"' in html  # the failure comes first
    assert "data:video" not in render_report(replace(report, video_limit=0))


def test_the_limit_is_shared_by_all_evaluations(report: RunReport) -> None:
    one = report.evaluations[0]
    size = sum(Path(video.path).stat().st_size for video in one.videos)
    both = replace(report, evaluations=[one, replace(one, name="other")], video_limit=size)
    text = re.sub(r"\s+", " ", Page(render_report(both)).text)
    assert text.count("1 of 2 videos are in this file") == 2


def test_a_file_that_is_no_video_is_named(report: RunReport, tmp_path: Path) -> None:
    broken = Video(tmp_path / "broken.mp4", label="pair 7", success=True)
    broken.path.write_bytes(b"no video")
    with pytest.raises(ContractError, match=r"broken\.mp4' of 'pair 7' cannot be decoded"):
        render_report(replace(report, evaluations=[replace(report.evaluations[0], videos=[broken])]))


def test_write_creates_folders_and_leaves_only_the_report(report: RunReport, tmp_path: Path) -> None:
    path = write_report(report, tmp_path / "deep" / "er" / "report.html")
    assert path.read_text(encoding="utf-8") == render_report(report)
    assert list(path.parent.iterdir()) == [path]


def test_failed_write_keeps_the_earlier_report(report: RunReport, tmp_path: Path) -> None:
    path = tmp_path / "out" / "report.html"
    write_report(report, path)
    before = path.read_bytes()
    missing = replace(report.evaluations[0], videos=[Video(tmp_path / "missing.mp4", label="pair 7", success=True)])
    with pytest.raises(NotFoundError, match=r"missing\.mp4' of 'pair 7' does not exist"):
        write_report(replace(report, evaluations=[missing]), path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_comparison_is_in_percent_with_the_wilson_interval() -> None:
    c = Comparison.from_counts("random", 23, 100)
    assert (c.rate, round(c.low, 2), round(c.high, 2)) == (23.0, 15.84, 32.15)
