"""The report in a real browser: errors, pictures, sorting, dark theme, narrow windows and print.

These tests need Chromium: the path in LNTL_CHROMIUM, Playwright's Chromium, or an installed one; else they are skipped.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from lntl.reporting.pages import write_report

pytestmark = pytest.mark.full
CHROMIUM_NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
IMAGE_WIDTHS = """async () => {
  const sources = [...document.querySelectorAll("svg image")].map((image) => image.getAttribute("href"));
  return Promise.all(sources.map(async (source) => {
    const image = new Image();
    image.src = source;
    try { await image.decode(); } catch { return 0; }
    return image.naturalWidth;
  }));
}"""
# The smallest contrast (WCAG 2) of visible texts with the page's background; normal text needs 4.5.
CONTRAST = """() => {
  const context = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const luminance = (color) => {
    context.fillStyle = color;
    context.fillRect(0, 0, 1, 1);
    const parts = [...context.getImageData(0, 0, 1, 1).data].slice(0, 3).map((part) => part / 255);
    const [r, g, b] = parts.map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const background = luminance(getComputedStyle(document.body).backgroundColor);
  const texts = [...document.querySelectorAll("h1, h2, p, small, th, td, dt, dd, a, figcaption")];
  const words = texts.map((element) => getComputedStyle(element).color);
  const ticks = [...document.querySelectorAll(".drawing text[style*=currentColor]")];
  const values = [...words, ...ticks.map((element) => getComputedStyle(element).fill)].map(luminance);
  const ratio = (value) => (Math.max(value, background) + 0.05) / (Math.min(value, background) + 0.05);
  return Math.min(...values.map(ratio));
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A headless Chromium."""
    with sync_playwright() as playwright:
        environment_path = os.environ.get("LNTL_CHROMIUM")
        bundled_path = Path(playwright.chromium.executable_path)
        path = environment_path or (
            None if bundled_path.exists() else next(filter(None, map(shutil.which, CHROMIUM_NAMES)), "")
        )
        if path == "":
            pytest.skip("no Chromium: `playwright install chromium-headless-shell`, or name one with LNTL_CHROMIUM")
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium's sandbox does not run as root
        chromium = playwright.chromium.launch(executable_path=path, args=arguments)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def pages(synthetic_runs: Path, shared_folder: Callable[[str, Callable[[Path], object]], Path]) -> dict[str, Path]:
    """The paths of a report of one run and of a report of two runs."""
    runs = {"single": [synthetic_runs / "lntl"], "several": [synthetic_runs / "lntl", synthetic_runs / "plain"]}
    return {
        name: shared_folder(f"report-{name}", partial(write_report, run)) / "index.html" for name, run in runs.items()
    }


@pytest.fixture
def visit(browser: Browser, pages: dict[str, Path]) -> Iterator[Callable[..., Page]]:
    """A function that opens a page; the page must print nothing to the console and request nothing from a network."""
    events: list[str] = []
    contexts = []

    def visit(name: str, *, fragment: str = "", width: int = 1280, color_scheme: str = "light") -> Page:
        settings = {"viewport": {"width": width, "height": 800}, "color_scheme": color_scheme}
        context = browser.new_context(**settings)  # type: ignore[arg-type]
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: events.append(message.text))
        page.on("pageerror", lambda error: events.append(str(error)))
        page.on(
            "request", lambda request: events.extend([request.url] * (not request.url.startswith(("file:", "data:"))))
        )
        page.goto(pages[name].as_uri() + fragment)
        return page

    yield visit
    for context in contexts:
        context.close()
    assert events == []


Visit = Callable[..., Page]


@pytest.mark.parametrize("name", ["single", "several"])
def test_all_images_load(visit: Visit, name: str) -> None:
    widths = visit(name).evaluate(IMAGE_WIDTHS)
    assert len(widths) >= 8
    assert min(widths) > 0


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("name", ["single", "several"])
def test_the_page_is_never_wider_than_the_window(visit: Visit, name: str, width: int) -> None:
    page = visit(name, width=width)
    page.evaluate("document.querySelectorAll('details').forEach((details) => { details.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_answer_is_visible_without_scrolling(visit: Visit) -> None:
    page = visit("single")
    for element in (
        page.locator("h1"),
        page.locator(".sentence"),
        page.locator(".tiles"),
        page.locator(".answers dd").first,
    ):
        box = element.bounding_box()
        assert box is not None
        assert box["y"] + box["height"] < 800


def test_a_click_sorts_a_column_and_a_second_click_reverses_it(visit: Visit) -> None:
    page = visit("single")
    table = page.locator("table", has=page.locator("caption", has_text="Accuracy by color"))
    shares = table.locator("tbody td:nth-child(3)")

    def read_values() -> list[float]:
        return [float(value) for value in shares.evaluate_all("cells => cells.map((cell) => cell.dataset.value)")]

    original_values = read_values()
    assert original_values != sorted(original_values)
    header = table.get_by_role("columnheader", name="this run")
    header.get_by_role("button").click()
    assert read_values() == sorted(original_values)
    assert header.get_attribute("aria-sort") == "ascending"
    header.get_by_role("button").click()
    assert read_values() == sorted(original_values, reverse=True)
    assert header.get_attribute("aria-sort") == "descending"
    table.get_by_role("button", name="color").click()
    names = table.locator("tbody th").all_inner_texts()
    assert names == sorted(names)
    assert header.get_attribute("aria-sort") == "none"


def test_the_keyboard_sorts_and_unmeasured_rows_stay_last(visit: Visit) -> None:
    page = visit("single")
    table = page.locator("table", has=page.locator("caption", has_text="Metrics on the test set"))
    button = table.get_by_role("button", name="this run")
    for key, order in (("Enter", "ascending"), ("Space", "descending")):
        button.focus()
        page.keyboard.press(key)
        assert table.get_by_role("columnheader", name="this run").get_attribute("aria-sort") == order
        assert table.locator("tbody th").last.inner_text().startswith("accuracy of h")


def test_the_keyboard_focus_is_visible(visit: Visit) -> None:
    page = visit("single")
    page.keyboard.press("Tab")
    skip_link = page.locator(".skip")
    assert skip_link.evaluate("(link) => link === document.activeElement")
    box = skip_link.bounding_box()
    assert box is not None
    assert box["x"] >= 0
    page.keyboard.press("Tab")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_wide_figures_can_be_focused_on_a_narrow_screen(visit: Visit) -> None:
    page = visit("single", width=390)
    boxes = page.locator("figure .scroll")
    num_wide_boxes = boxes.evaluate_all("boxes => boxes.filter((box) => box.scrollWidth > box.clientWidth).length")
    num_focusable_boxes = boxes.evaluate_all("boxes => boxes.filter((box) => box.tabIndex === 0).length")
    assert num_wide_boxes == num_focusable_boxes > 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_and_figures_have_enough_contrast_in_both_themes(visit: Visit, scheme: str) -> None:
    page = visit("single", color_scheme=scheme)
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(20, 23, 26)") == (scheme == "dark")
    assert page.evaluate(CONTRAST) >= 4.5
    assert page.locator(".drawing text[style*=currentColor]").count() > 50


def test_print_shows_all_details_in_light_colors_without_navigation(visit: Visit) -> None:
    page = visit("several", color_scheme="dark")
    assert page.locator("details:not([open])").count() > 0
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print")
    assert page.locator("details:not([open])").count() == 0
    assert not page.locator("nav").is_visible()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    assert page.pdf().startswith(b"%PDF")
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("details:not([open])").count() > 0


def test_a_link_opens_the_details_element_that_contains_its_target(visit: Visit) -> None:
    page = visit("several", fragment="#run2-leakage")
    assert page.locator("#run2").evaluate("(details) => details.open")
    assert not page.locator("#run1").evaluate("(details) => details.open")
