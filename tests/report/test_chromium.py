"""The report as a browser shows it, from disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browsing import open_browser, visit

from stable_worldmodel.report import RunReport, write_report

BACKGROUND = {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 24, 28)"}
LINE = {"light": "rgb(31, 95, 168)", "dark": "rgb(111, 177, 245)"}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with open_browser() as opened:
        yield opened


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("screen", ["phone", "desktop"])
def test_the_page_fits_every_screen_and_asks_for_nothing(
    report: RunReport, tmp_path: Path, browser: Any, screen: str, scheme: str
) -> None:
    path = write_report(report, tmp_path / "report.html")
    with visit(browser, path.as_uri(), screen, scheme) as seen:
        page = seen.page
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == BACKGROUND[scheme]
        line = "getComputedStyle(document.querySelector(\"svg g path[style*='--series-1']\")).stroke"
        assert page.evaluate(line) == LINE[scheme]
        assert page.locator(".rate").first.inner_text() == "91.0 %"
        assert page.locator(".heat b").inner_text() == "90 %"
        assert seen.sideways() == 0
        smallest = "Math.min(...[...document.querySelectorAll('svg text')].map(t => t.getBoundingClientRect().height))"
        assert page.evaluate(smallest) >= 9  # css pixels
    assert seen.complaints == []
    assert [url for url in seen.requests if not url.startswith("data:")] == [path.as_uri()]


def test_videos_are_decoded_when_opened_and_play(report: RunReport, tmp_path: Path, browser: Any) -> None:
    path = write_report(report, tmp_path / "report.html")
    with visit(browser, path.as_uri()) as seen:
        page = seen.page
        thumbnails = "[...document.querySelectorAll('.clips img')].map(image => image.naturalWidth)"
        assert page.evaluate(thumbnails) == [96, 96]
        # Nothing is decoded before it is asked for.
        assert page.evaluate("[...document.querySelectorAll('video')].map(video => video.readyState)") == [0, 0]
        clip = page.locator(".clips details").nth(1)
        clip.locator("summary").click()
        video = clip.locator("video")
        assert video.is_visible()
        video.evaluate("video => video.play()")
        seen.until("document.querySelectorAll('video')[1].currentTime > 0.2")
        assert video.evaluate("video => [video.videoWidth, video.error]") == [96, None]
        assert page.evaluate("document.querySelectorAll('video')[0].readyState") == 0
    assert seen.complaints == []
