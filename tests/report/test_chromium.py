"""The report as a browser shows it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path

import pytest

from stable_worldmodel.report import RunReport, write_report

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")

# The report forbids scripts, so the probe goes into a copy without that rule.
PROBE = """
<script>
addEventListener("load", () => setTimeout(() => {
  const root = document.documentElement, style = getComputedStyle(document.body);
  document.body.dataset.probe = JSON.stringify({
    videos: [...document.querySelectorAll("video")].map(v => [v.readyState >= 2, v.videoWidth, v.error]),
    overflow: root.scrollWidth - root.clientWidth,
    background: style.backgroundColor,
    line: getComputedStyle(document.querySelector("svg g path[style*='--series-1']")).stroke,
    smallest: Math.min(...[...document.querySelectorAll("svg text")].map(t => t.getBoundingClientRect().height)),
  });
}, 1500));
</script>
"""


def browse(page: Path, *options: str) -> subprocess.CompletedProcess[str]:
    base = ["--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--virtual-time-budget=5000"]
    profile = f"--user-data-dir={page.parent / 'profile'}"
    command = [str(CHROMIUM), *base, profile, *options, "--dump-dom", page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)


def probe(report: RunReport, folder: Path, *options: str) -> dict:
    page = write_report(report, folder / "report.html")
    html = re.sub(r"<meta http-equiv=.*?>", "", page.read_text(encoding="utf-8"), count=1, flags=re.DOTALL)
    page.write_text(html.replace("</body>", PROBE + "</body>"), encoding="utf-8")
    found = re.search(r'data-probe="(.*?)"', browse(page, *options).stdout)
    assert found is not None
    return json.loads(unescape(found.group(1)))


def test_browser_has_nothing_to_complain_about(report: RunReport, tmp_path: Path) -> None:
    done = browse(write_report(report, tmp_path / "report.html"))
    assert "CONSOLE" not in done.stderr
    assert "</html>" in done.stdout


def test_desktop_shows_videos_ready_to_play_on_a_light_page(report: RunReport, tmp_path: Path) -> None:
    # The browser's virtual clock does not wait for the video decoder, which may be slow on a busy machine.
    for _attempt in range(5):
        seen = probe(report, tmp_path, "--window-size=1200,2000")
        if all(has_frame for has_frame, _, _ in seen["videos"]):
            break
    assert seen["videos"] == [[True, 96, None]] * 2  # decoded, of the right width, no error
    assert seen["background"] == "rgb(255, 255, 255)"
    assert seen["line"] == "rgb(31, 95, 168)"
    assert seen["overflow"] == 0


def test_phone_in_dark_mode_has_no_sideways_scrolling_and_legible_plots(report: RunReport, tmp_path: Path) -> None:
    seen = probe(report, tmp_path, "--window-size=390,3000", "--force-dark-mode")
    assert seen["background"] == "rgb(20, 24, 28)"
    assert seen["line"] == "rgb(111, 177, 245)"
    assert seen["overflow"] == 0
    assert seen["smallest"] >= 9  # css pixels
