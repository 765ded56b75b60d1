"""The report in a real browser: nothing fails, everything shows, tables sort, it fits and prints.

Skipped, with the reason, where no Chromium is found; `CHROMIUM` names one elsewhere. `.ci/run`
installs Debian's and sets `REQUIRE_CHROMIUM`, under which the tests fail instead of being skipped.
"""

import os
import shutil

import pytest

from search.report.figures.catalogue import pictures_of

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
WIDTH = 1280
A4_WIDTH = 703
"""Pixels between the margins of a printed page: (210 - 2 x 12) mm at 96 dots per inch."""


@pytest.fixture(scope="session")
def browser():
    """A headless Chromium from this machine."""
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        reason = f"no Chromium on this machine: looked for {', '.join(NAMES)}, and in $CHROMIUM"
        if os.environ.get("REQUIRE_CHROMIUM"):
            pytest.fail(reason)
        pytest.skip(reason)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # a container's root has no user namespace for the sandbox; the page is our own
        started = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def opened(browser, written):
    """The page, what its console said, and what it asked for."""
    page = browser.new_page(viewport={"width": WIDTH, "height": 900})
    said, asked = [], []
    page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto((written.folder / "index.html").as_uri())
    yield page, said, asked
    page.close()


def test_the_console_is_silent_and_nothing_is_loaded(opened):
    page, said, asked = opened
    assert said == []
    outside = [url for url in asked if not url.startswith("data:")]
    assert outside == [page.url]


def test_every_figure_shows(opened, drawn):
    page, _, _ = opened
    widths = page.evaluate("[...document.images].map(image => image.naturalWidth)")
    assert len(widths) == len(list(pictures_of(drawn)))
    assert min(widths) > 600
    titles = page.evaluate("[...document.images].map(image => image.alt)")
    assert {"Failure atlas", "Learning curves and rungs", "Spectral backends"} <= set(titles)


def fits(page):
    assert page.evaluate("document.documentElement.scrollWidth") <= WIDTH
    wide = """[...document.querySelectorAll('table, img, figure, p')]
        .filter(e => e.getBoundingClientRect().right > innerWidth || e.scrollWidth > innerWidth)"""
    assert page.evaluate(f"{wide}.map(e => e.outerHTML.slice(0, 80))") == []
    cut = "[...document.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth)"
    assert page.evaluate(f"{cut}.map(e => e.firstElementChild.id)") == []


def test_it_fits_a_screen_of_1280_pixels(opened):
    fits(opened[0])


@pytest.mark.slow
def test_a_comparison_fits_too(browser, compared):
    page = browser.new_page(viewport={"width": WIDTH, "height": 900})
    page.goto((compared[0].folder / "compare-other.html").as_uri())
    fits(page)
    page.close()


def column(page, table, index):
    return page.evaluate(
        f"[...document.querySelectorAll('#{table} tbody tr')]"
        f".map(row => row.cells[{index}].dataset.key)"
    )


@pytest.mark.parametrize(
    ("table", "index"),
    [("leaderboard-table", 2), ("leaderboard-table", 3), ("parameters-table", 0)],
)
def test_a_click_on_a_heading_sorts_and_another_one_reverses(opened, table, index):
    page, _, _ = opened
    heading = page.locator(f"#{table} th").nth(index)
    numeric = "number" in (heading.get_attribute("class") or "")
    before = column(page, table, index)
    for direction in ("ascending", "descending"):
        heading.locator("button").click()
        assert heading.get_attribute("aria-sort") == direction
        keys = column(page, table, index)
        assert sorted(keys) == sorted(before)
        known = [key for key in keys if key]
        assert keys == known + [""] * (len(keys) - len(known))  # empty cells stay last
        values = [float(key) if numeric else key for key in known]
        assert values == sorted(values, reverse=direction == "descending")


def test_headings_sort_from_the_keyboard(opened):
    page, _, _ = opened
    button = page.locator("#leaderboard-table th button").nth(2)
    button.focus()
    page.keyboard.press("Enter")
    assert page.locator("#leaderboard-table th").nth(2).get_attribute("aria-sort") == "ascending"


def test_it_prints_within_the_page(opened, tmp_path):
    page, _, _ = opened
    page.set_viewport_size({"width": A4_WIDTH, "height": 1000})
    page.emulate_media(media="print")
    wide = "[...document.querySelectorAll('body *')].filter(e => e.scrollWidth > innerWidth)"
    assert page.evaluate(f"{wide}.map(e => e.outerHTML.slice(0, 80))") == []
    assert page.evaluate("getComputedStyle(document.querySelector('nav')).display") == "none"
    sheet = tmp_path / "report.pdf"
    page.pdf(path=sheet, prefer_css_page_size=True)
    pages = sheet.read_bytes().count(b"/Type /Page\n")
    page.emulate_media(media="screen")
    page.set_viewport_size({"width": WIDTH, "height": 900})
    assert 6 <= pages <= 30
