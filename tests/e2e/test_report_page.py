"""The pages of a sweep and of a leaderboard in Chromium: they work from a file, by mouse, keyboard, phone, printer."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from kdbench.board.leaderboard import leaderboard
from kdbench.board.pages import page
from kdbench.board.submissions import read
from kdbench.report.report import write_report
from tests.support.boards import submit
from tests.support.helpers import ROOT
from tests.support.report_frames import GAINS, LADDER, sweep_frame

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")

HOSTILE = '"><img src=x onerror=alert(1)>_</script><script>alert(2)</script>'
RECORDS = sorted((ROOT / "results" / "records").rglob("report.html"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep whose names come from an enemy, under two methods."""
    ladder = {HOSTILE: (400_000, 0.86), **dict(list(LADDER.items())[:2])}
    frame = sweep_frame(ladder, (0.02, *GAINS[:2]), methods=("kd", "dkd"), trials=7)
    frame["sweep"] = frame["dataset"] = HOSTILE
    manifest = {"command": f"kdbench sweep --pair a:b --name '{HOSTILE}'", "git": HOSTILE}
    return write_report(tmp_path_factory.mktemp("page"), frame, manifest).paths["report.html"]


class Page:
    """An open page, with whatever it complained of or asked for."""

    def __init__(self, browser: Any, path: Path, width: int = 1200, media: str = "screen") -> None:
        self.page = browser.new_page(viewport={"width": width, "height": 800})
        self.page.emulate_media(media=media)
        self.faults: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.faults.append(message.text))
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.faults.append("dialog"), dialog.dismiss()))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())

    def column(self, head: str) -> tuple[Any, list[str]]:
        """A heading of the table and what its cells sort by, from the top."""
        heads = self.page.locator("#pareto thead th")
        index = next(k for k in range(heads.count()) if heads.nth(k).inner_text().strip().startswith(head))
        cells = self.page.locator(f"#pareto tbody td:nth-child({index + 1})")
        return heads.nth(index), [cells.nth(k).get_attribute("data-order") for k in range(cells.count())]


def test_page_asks_for_nothing_and_complains_of_nothing(browser: Any, report: Path) -> None:
    opened = Page(browser, report)
    for mark in opened.page.locator("#plot [tabindex]").all():
        mark.hover()
    assert opened.faults == []
    assert [url for url in opened.requests if not url.startswith("data:")] == [report.as_uri()]
    pictures = opened.page.locator("img")
    assert pictures.count() >= 2
    assert all(one.get_attribute("alt") and one.evaluate("e => e.naturalWidth > 0") for one in pictures.all())


def test_names_stay_text(browser: Any, report: Path) -> None:
    opened = Page(browser, report)
    assert opened.page.locator("script:not([type])").count() == 1
    assert opened.page.locator("img[src=x]").count() == 0
    assert HOSTILE in opened.page.locator("h1").inner_text()
    assert opened.page.locator("#pareto tbody td:first-child").first.inner_text() == HOSTILE
    assert opened.faults == []


def test_a_point_tells_what_it_is(browser: Any, report: Path) -> None:
    """A few lines beside it by mouse and keyboard; a click leads to its seeds, run ids and command."""
    opened = Page(browser, report)
    mark = opened.page.locator('#plot [aria-label^="mobilenetv3_small_050, distilled (kd)"]')
    tip = opened.page.locator("#tip")
    mark.hover()
    hovered = tip.inner_text()
    assert hovered.startswith("mobilenetv3_small_050, distilled (kd)") and "%" in hovered
    opened.page.locator("#plot [tabindex]").first.focus()
    assert tip.inner_text() != hovered
    mark.focus()
    assert tip.inner_text() == hovered and tip.get_attribute("role") == "status"
    opened.page.keyboard.press("Tab")
    assert tip.inner_text() != hovered
    mark.focus()
    opened.page.keyboard.press("Enter")
    assert not tip.is_visible()
    card = opened.page.locator("details[open]:target")
    card.wait_for()  # the page opens it when it hears of the new address
    for words in ("temperature", "alpha", "0.75", "1001", "1002", "1003", "run000", "Pareto front"):
        assert words in card.inner_text()
    command = card.locator("pre").inner_text()
    assert command.startswith("kdbench sweep") and "--temperature 4.0 --alpha 0.75" in command
    assert "mobilenetv3_small_050" in command


def test_table_sorts_by_mouse_and_keyboard(browser: Any, report: Path) -> None:
    opened = Page(browser, report)
    head, before = opened.column("Gain")
    head.locator("button").click()
    best = [float(value) for value in opened.column("Gain")[1] if value]
    assert head.get_attribute("aria-sort") == "descending"
    assert best == sorted((float(value) for value in before if value), reverse=True)
    head.locator("button").focus()
    opened.page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"
    assert [float(value) for value in opened.column("Gain")[1] if value] == best[::-1]
    assert opened.page.locator("#pareto th[aria-sort]").count() == 1
    opened.column("Student")[0].locator("button").click()
    names = opened.column("Student")[1]
    assert names == opened.page.evaluate("names => names.toSorted((a, b) => a.localeCompare(b))", names)


@pytest.mark.parametrize("path", ["made up", *RECORDS], ids=lambda path: getattr(path, "parent", Path(path)).name)
@pytest.mark.parametrize(("width", "media"), [(360, "screen"), (1280, "screen"), (718, "print")])
def test_nothing_sticks_out(browser: Any, report: Path, path: Path | str, width: int, media: str) -> None:
    """No scrolling sideways on a phone, on a desk, or on A4; what is wide scrolls in a box of its own."""
    opened = Page(browser, report if path == "made up" else Path(path), width, media)
    opened.page.locator("#plot [tabindex]").first.focus()
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
    assert opened.faults == []
    if media == "print" and path != "made up":  # its own names are longer than a page
        wide = opened.page.locator("#pareto").evaluate("table => table.getBoundingClientRect().right")
        assert wide <= width


def test_a_desk_shows_the_whole_table(browser: Any) -> None:
    digits = next(path for path in RECORDS if path.parent.name.startswith("digits"))
    box = Page(browser, digits, 1280).page.locator(".scroll:has(#pareto)")
    assert box.evaluate("box => box.scrollWidth <= box.clientWidth")


def test_tables_and_regions_have_names(browser: Any, report: Path) -> None:
    opened = Page(browser, report)
    for table in opened.page.locator("main table").all():
        assert all(head.get_attribute("scope") for head in table.locator("th").all())
    for part in opened.page.locator("[aria-labelledby]").all():
        assert opened.page.locator(f"[id='{part.get_attribute('aria-labelledby')}']").count() == 1
    assert opened.page.locator("html").get_attribute("lang") == "en"
    levels = [int(tag[1]) for tag in opened.page.locator("h1, h2, h3").evaluate_all("all => all.map(e => e.tagName)")]
    assert levels[0] == 1 and all(after - before <= 1 for before, after in pairwise(levels))


SORTED = """name => {
  const table = document.querySelector("table"), heads = [...table.tHead.rows[0].cells];
  const column = heads.findIndex(head => head.textContent.startsWith(name));
  heads[column].querySelector("button").click();
  return [...table.tBodies].map(body => [...body.rows].slice(1).map(row => row.cells[column].textContent.trim()));
}"""


def test_a_leaderboard_sorts_within_protocols_and_asks_for_nothing(browser: Any, tmp_path: Path) -> None:
    submit(tmp_path / "a", hardware="box 1", ms=9.0)
    submit(tmp_path / "b", hardware="box 2", ms=3.0, method="dkd", when="2026-01-03")
    submit(tmp_path / "c", epochs=7, when="2026-01-04")
    file = tmp_path / "page.html"
    file.write_text(page(leaderboard(read([tmp_path]))), encoding="utf-8")
    opened = Page(browser, file)
    small = opened.page.evaluate(SORTED, "Params")
    assert small == [["0.30 M"] * 3 + ["0.40 M"] * 3, ["0.30 M"] * 2 + ["0.40 M"] * 2]
    assert opened.page.evaluate(SORTED, "Params") == [row[::-1] for row in small]
    latency = opened.page.evaluate(SORTED, "Latency")
    assert [cell.split(",")[0] for cell in latency[0][:3]] == ["9.0 (h1)", "9.0 (h1)", "3.0 (h2)"]
    assert opened.page.evaluate(SORTED, "#") == [["A1", "A2", "A3", "A4", "A5", "A6"], ["B1", "B2", "B3", "B4"]]
    assert opened.faults == [] and opened.requests == [file.as_uri()]
