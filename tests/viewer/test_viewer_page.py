"""The viewer's page in a real browser."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from browsing import Visit, open_browser, visit

from stable_worldmodel.viewer import ViewerServer, open_viewer


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with open_browser() as opened:
        yield opened


def ready(seen: Visit) -> None:
    """Wait until the first episode and the summary of all are there."""
    seen.page.wait_for_selector(".row")
    seen.page.wait_for_selector(".pane .factors tr", state="attached")
    seen.page.wait_for_selector(".pane .plot")


def shade(seen: Visit, pane: int = 0) -> float:
    """The red of the pixel in the middle of what a pane shows; the toy draws its step."""
    return (
        seen.page.locator(".pane")
        .nth(pane)
        .locator(".views img")
        .first.evaluate(
            """async image => {
            await image.decode();
            const canvas = document.createElement("canvas");
            canvas.width = canvas.height = 1;
            canvas.getContext("2d").drawImage(image, image.naturalWidth / 2, image.naturalHeight / 2, 1, 1, 0, 0, 1, 1);
            return canvas.getContext("2d").getImageData(0, 0, 1, 1).data[0];
        }"""
        )
    )


def labels(seen: Visit) -> list[int]:
    """Numbers of the episodes in the list, from the top."""
    found = seen.page.locator(".row").evaluate_all("rows => rows.map(r => [r.offsetTop, Number(r.dataset.episode)])")
    return [episode for _, episode in sorted(found)]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("screen", ["phone", "desktop"])
def test_the_page_fits_every_screen_and_asks_only_its_server(
    server: ViewerServer, browser: Any, screen: str, scheme: str
) -> None:
    with visit(browser, server.url, screen, scheme) as seen:
        ready(seen)
        background = seen.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert background == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 24, 28)"}[scheme]
        assert seen.sideways() == 0
        assert seen.page.locator("#count").inner_text() == "30 episodes"
        seen.until("[...document.querySelectorAll('.row img')].some(i => i.naturalWidth > 100)")
    assert seen.complaints == []
    assert all(address.startswith(server.url) for address in seen.requests)


def test_frames_and_plots_move_together(server: ViewerServer, browser: Any) -> None:
    with visit(browser, f"{server.url}#source=dataset&episodes=0,1&row=0") as seen:
        ready(seen)
        page = seen.page
        last = int(page.locator("#scrub").get_attribute("max") or 0)
        assert last >= 2
        page.locator("#scrub").fill("1")
        seen.until("document.querySelector('.views img').dataset.row == '1'")
        assert abs(shade(seen) - 2) <= 2
        assert page.locator("#position").inner_text() == f"1 / {last}"
        assert "row=1" in page.url
        plot = page.locator(".pane").first.locator(".plot svg").first
        before = float(plot.locator(".cursor").get_attribute("x1") or -1)
        box = plot.bounding_box()
        assert box is not None
        page.mouse.click(box["x"] + box["width"] - 1, box["y"] + 10)  # the plot's end
        assert float(plot.locator(".cursor").get_attribute("x1") or -1) > before
        page.keyboard.press("ArrowLeft")
        assert float(plot.locator(".cursor").get_attribute("x1") or -1) < 1000
    assert seen.complaints == []


def test_playing_shows_every_row_until_the_end(server: ViewerServer, browser: Any) -> None:
    with visit(browser, server.url) as seen:
        ready(seen)
        page = seen.page
        page.select_option("#sort", "length")
        page.check("#descending")
        page.locator(".row").first.click()
        seen.until("document.querySelectorAll('.row.chosen').length == 1")
        page.select_option("#fps", "30")
        last = int(page.locator("#scrub").get_attribute("max") or 0)
        assert last >= 8
        page.evaluate(
            """() => {
                window.rows = [];
                new MutationObserver(() => window.rows.push(document.querySelector(".views img").dataset.row))
                    .observe(document.querySelector(".views img"), {attributeFilter: ["data-row"]});
            }"""
        )
        page.click("#play")
        seen.until(f"document.querySelector('#scrub').value == '{last}'")
        assert page.evaluate("window.rows.map(Number)") == list(range(1, last + 1))
        seen.until("document.querySelector('#play').ariaLabel == 'Play'")
    assert seen.complaints == []


def test_two_episodes_stand_side_by_side(server: ViewerServer, browser: Any) -> None:
    with visit(browser, server.url) as seen:
        ready(seen)
        page = seen.page
        page.locator(".row").nth(2).locator("button").click()
        seen.until("document.querySelectorAll('.pane').length == 2")
        headings = page.locator(".pane h2").all_inner_texts()
        assert headings == ["Episode 0", "Episode 2"]
        lefts = page.locator(".pane").evaluate_all("panes => panes.map(p => p.getBoundingClientRect().left)")
        assert lefts[1] > lefts[0] + 100
        # The longer one goes on alone, the other one stays at its end.
        last = int(page.locator("#scrub").get_attribute("max") or 0)
        page.locator("#scrub").fill(str(last))
        assert (
            page.evaluate("Math.max(...[...document.querySelectorAll('.views img')].map(i => i.dataset.row))") == last
        )
        page.locator(".pane header button").first.click()
        seen.until("document.querySelectorAll('.pane').length == 1")
        assert page.locator(".pane h2").inner_text() == "Episode 2"
    assert seen.complaints == []


def test_who_moves_on_before_the_plots_are_there_is_not_thrown_back(server: ViewerServer, browser: Any) -> None:
    with visit(browser, server.url) as seen:
        ready(seen)
        page, held = seen.page, []
        page.route("**/columns/2?*", lambda route: held.append(route))
        with page.expect_request("**/columns/2?*"):
            page.locator(".row").nth(2).locator("button").click()
        page.locator("#scrub").fill("5")
        assert page.locator(".pane").nth(1).locator(".plot").count() == 0
        for route in held:
            route.continue_()
        seen.until("document.querySelector('.pane:nth-child(2) .plot')")
        assert page.locator("#scrub").input_value() == "5"
        rows = page.locator(".views img").evaluate_all("images => images.map(i => Number(i.dataset.row))")
        assert rows == [5, min(5, server.sources["dataset"].lengths[2] - 1)]
        assert "row=5" in page.url
    assert seen.complaints == []


def test_filters_and_order_are_those_of_the_numbers(server: ViewerServer, browser: Any) -> None:
    source = server.sources["dataset"]
    returns = source.summary()["return"]
    with visit(browser, server.url) as seen:
        ready(seen)
        page = seen.page
        page.click("#add-condition")
        page.select_option(".condition select", "return")
        middle = float(np.median(returns))
        page.locator(".condition input").first.fill(str(middle))
        expected = [e for e in range(30) if returns[e] >= middle]
        assert page.locator("#count").inner_text() == f"{len(expected)} of 30 episodes"
        assert labels(seen)[:5] == expected[:5]
        page.select_option("#sort", "return")
        page.check("#descending")
        assert labels(seen)[:4] == sorted(expected, key=lambda e: (-returns[e], e))[:4]
        page.locator(".condition button").click()
        assert page.locator("#count").inner_text() == "30 episodes"
    assert seen.complaints == []


def test_videos_of_an_evaluation_can_be_chosen(server: ViewerServer, browser: Any) -> None:
    with visit(browser, server.url) as seen:
        ready(seen)
        page = seen.page
        page.select_option("#source", "random")
        seen.until("document.querySelector('#count').textContent == '4 episodes'")
        seen.until("document.querySelector('.views img')?.src.includes('/random/frame/video/0/')")
        page.wait_for_selector(".pane header .good, .pane header .bad")
        assert shade(seen) <= 4
    assert seen.complaints == []


def test_columns_and_images_can_be_chosen(server: ViewerServer, browser: Any) -> None:
    with visit(browser, server.url) as seen:
        ready(seen)
        page = seen.page
        page.locator("#choice summary").click()
        page.locator("#chips label", has_text="goal").locator("input").check()
        page.locator("#chips label", has_text="state").locator("input").check()
        seen.until("document.querySelectorAll('.plot').length == 3")
        assert page.locator(".views figcaption").all_inner_texts() == ["pixels", "goal"]
        assert page.locator(".plot .head > span").all_inner_texts() == ["reward", "action", "state"]
    assert seen.complaints == []


def test_a_fault_of_the_server_is_shown(server: ViewerServer, browser: Any) -> None:
    with visit(browser, server.url) as seen:
        ready(seen)
        seen.page.route("**/columns/**", lambda route: route.fulfill(status=400, json={"error": "row 3 is damaged"}))
        seen.page.locator(".row").nth(1).click()
        seen.page.wait_for_selector("#message:not([hidden])")
        assert seen.page.locator("#message").inner_text() == "row 3 is damaged"


def test_twenty_thousand_episodes_make_a_short_page(browser: Any, tmp_path: Path) -> None:
    episodes, rows = 20_000, 5
    with h5py.File(tmp_path / "many.h5", "w") as file:
        file["ep_len"], file["ep_offset"] = np.full(episodes, rows), np.arange(episodes) * rows
        file["reward"] = np.repeat(np.arange(episodes) / rows, rows)
        file["pixels"] = np.zeros((episodes * rows, 8, 8, 3), np.uint8)
    with open_viewer(tmp_path / "many.h5") as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with visit(browser, server.url) as seen:
            ready(seen)
            page = seen.page
            assert page.locator("#count").inner_text() == "20,000 episodes"
            assert page.locator(".row").count() < 40
            page.locator("#list").evaluate("list => list.scrollTop = list.scrollHeight")
            page.wait_for_selector(".row[data-episode='19999']")
            assert page.locator(".row").count() < 40
            page.locator(".row[data-episode='19999']").click()
            seen.until("document.querySelector('.pane h2').textContent == 'Episode 19999'")
            page.select_option("#sort", "return")
            page.check("#descending")
            page.locator("#list").evaluate("list => list.scrollTop = 0")
            page.wait_for_selector(".row[data-episode='19998']")
            assert labels(seen)[0] == 19_999
        server.shutdown()
    assert seen.complaints == []
