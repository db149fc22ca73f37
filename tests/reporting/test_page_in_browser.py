"""The page of a report in Chromium: no complaint, no request, no overflow, dark scheme, print."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
from frames.scaling_frames import BUDGETS, SIZES, UNTRAINED, follow_law, scaling_frames
from pages.chromium import EXECUTABLE, Chromium, Tab, start_chromium

from lab.reporting.page import write_report

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(EXECUTABLE is None, reason="Chromium is not installed"),
]
DRAWN = "[...document.querySelectorAll('.live .plot')].every((plot) => plot.querySelector('svg'))"
VISIBLE = """
  (selector) => [...document.querySelectorAll(selector)]
    .filter((each) => each.offsetHeight > 0).map((each) => each.id)
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a page with all kinds of figures and more settings than a legend has room for."""
    frames = scaling_frames(
        follow_law(),
        compare={"encoder.size": SIZES, "budget.amount": BUDGETS[1:4]},
        rates=(1e-3, 2e-3),
        seeds=1,
        columns=lambda _: {"train/loss": 2.5, "train/mlm_loss": 2.5, "health/grad_norm_encoder": 1},
    )
    frames = dataclasses.replace(frames, experiment_id="7")
    return write_report(frames, tmp_path_factory.mktemp("reports"))


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with start_chromium(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture(scope="module")
def desktop(browser: Chromium, page: Path) -> Tab:
    return open_page(browser, page, 1_280)


def open_page(browser: Chromium, page: Path, width: int) -> Tab:
    """Return a tab of this width in pixels in which all interactive figures are drawn."""
    tab = browser.open_tab()
    tab.call("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1,
             mobile=width < 600)  # fmt: skip
    tab.load(page)
    tab.wait_for(DRAWN)
    return tab


def assert_quiet_and_within(tab: Tab, page: Path, width: int) -> None:
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    assert tab.complaints == []
    inner = ("data:", "blob:")  # addresses of content of the page itself
    assert [url for url in tab.requests if not url.startswith(inner)] == [page.as_uri()]


def test_page_complains_of_nothing_and_requests_nothing(desktop: Tab, page: Path) -> None:
    assert_quiet_and_within(desktop, page, 1_280)


def test_page_fits_a_phone(browser: Chromium, page: Path) -> None:
    phone = open_page(browser, page, 390)
    assert_quiet_and_within(phone, page, 390)
    phone.close()


def test_rows_of_trials_are_sorted_by_a_click(desktop: Tab) -> None:
    numbers = """
      [...document.querySelector(".trials tbody").rows].map((row) => Number(row.cells[0].innerText))
    """
    before = desktop.evaluate(numbers)
    for order, expected in (("ascending", sorted(before)), ("descending", sorted(before)[::-1])):
        desktop.evaluate("document.querySelector('.trials th button').click()")
        heads = (
            "[...document.querySelectorAll('.trials th')].map((h) => h.getAttribute('aria-sort'))"
        )
        assert [each for each in desktop.evaluate(heads) if each] == [order]
        assert desktop.evaluate(numbers) == expected


def test_points_are_reached_and_opened_by_keyboard(desktop: Tab) -> None:
    desktop.call("Emulation.setFocusEmulationEnabled", enabled=True)
    desktop.evaluate("window.open = (address) => (window.opened = address)")
    desktop.evaluate("document.querySelector('#live-scores .plot').focus()")
    labels = "[...document.querySelectorAll('#live-scores .hovertext')].map((e) => e.textContent)"
    for key, trial, is_start in (
        ("ArrowRight", 0, True), ("ArrowRight", 0, False), ("ArrowDown", 1, False),
        ("ArrowUp", 0, False), ("ArrowLeft", 0, True),
    ):  # fmt: skip
        desktop.press(key)
        shown = f"text.startsWith('trial {trial} (') && text.endsWith(' {UNTRAINED:.4f}')"
        shown += f" === {str(is_start).lower()}"
        desktop.wait_for(f"{labels}.length === 1 && {labels}.every((text) => {shown})")
    desktop.press("Enter")
    assert desktop.evaluate("window.opened") == "http://127.0.0.1:5000/#/experiments/7/runs/r"
    desktop.press("Tab")
    desktop.wait_for(f"{labels}.length === 0")


def test_figures_follow_the_dark_scheme(desktop: Tab) -> None:
    colors = """
      [
        getComputedStyle(document.body).backgroundColor,
        getComputedStyle(document.body).color,
        ...[...document.querySelectorAll(".plot .ytitle, .drawing > svg")].map((each) => {
          const style = getComputedStyle(each);
          return each.localName === "svg" ? style.color : style.fill;
        }),
      ]
    """
    for scheme, page, ink in (
        ("dark", "rgb(20, 23, 27)", "rgb(223, 227, 232)"),
        ("light", "rgb(255, 255, 255)", "rgb(27, 31, 36)"),
    ):
        media = [{"name": "prefers-color-scheme", "value": scheme}]
        desktop.call("Emulation.setEmulatedMedia", features=media)
        desktop.wait_for(f"{colors}.every((each, index) => each === (index ? '{ink}' : '{page}'))")
        assert len(desktop.evaluate(colors)) > 8


def test_print_has_the_static_figures_alone(desktop: Tab) -> None:
    live = desktop.evaluate(f"({VISIBLE})('.live')")
    desktop.call("Emulation.setEmulatedMedia", media="print")
    printed = desktop.evaluate(f"({VISIBLE})('figure')")
    desktop.call("Emulation.setEmulatedMedia", media="")
    assert "live-losses" in live
    assert {"score-flop", "cells", "tune-optim.lr", "health", "isoflop-1"} <= set(printed)
    assert not set(live) & set(printed)
