"""The leaderboard's page in a browser: it sorts within protocols, asks for nothing and reports no error."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from kdbench.board.leaderboard import leaderboard
from kdbench.board.pages import page
from kdbench.board.submissions import read
from tests.support.boards import submit

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PROBE = """<script>
const seen = {errors: []};
addEventListener("error", (event) => seen.errors.push(event.message));
addEventListener("securitypolicyviolation", (event) => seen.errors.push(event.blockedURI));
addEventListener("load", () => {
  const table = document.querySelector("table");
  const column = (name) => [...table.tHead.rows[0].cells].findIndex((cell) => cell.textContent.startsWith(name));
  const click = (name) => table.tHead.rows[0].cells[column(name)].querySelector("button").click();
  const shown = (name) => [...table.tBodies].map((body) => [...body.rows].slice(1)
    .map((row) => row.cells[column(name)].textContent.trim()));
  click("Params"); seen.small = shown("Params");
  click("Params"); seen.large = shown("Params");
  click("Latency"); seen.latency = shown("Latency");
  click("#"); seen.places = shown("#");
  seen.requests = performance.getEntriesByType("resource").length;
  document.title = JSON.stringify(seen);
});
</script>"""


@pytest.mark.skipif(BROWSER is None, reason="no Chromium here")
def test_the_page_sorts_within_protocols(tmp_path: Path) -> None:
    submit(tmp_path / "a", hardware="box 1", ms=9.0)
    submit(tmp_path / "b", hardware="box 2", ms=3.0, method="dkd", when="2026-01-03")
    submit(tmp_path / "c", epochs=7, when="2026-01-04")
    file = tmp_path / "page.html"
    file.write_text(page(leaderboard(read([tmp_path]))).replace("<title>", PROBE + "<title>", 1), encoding="utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'browser'}", "--dump-dom"]
    done = subprocess.run(
        [str(BROWSER), *flags, file.as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    title = re.search(r"<title>(.*?)</title>", done.stdout, re.DOTALL)
    assert title is not None
    seen = json.loads(title[1].replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">"))
    assert seen["errors"] == [] and seen["requests"] == 0
    assert seen["small"] == [["0.30 M"] * 3 + ["0.40 M"] * 3, ["0.30 M"] * 2 + ["0.40 M"] * 2]
    assert seen["large"] == [row[::-1] for row in seen["small"]]
    assert [cell.split(",")[0] for cell in seen["latency"][0][:3]] == ["9.0 (h1)", "9.0 (h1)", "3.0 (h2)"]
    assert seen["places"] == [["A1", "A2", "A3", "A4", "A5", "A6"], ["B1", "B2", "B3", "B4"]]
