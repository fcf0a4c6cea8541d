"""Leaderboards over another cost than parameters."""

from __future__ import annotations

import json
from pathlib import Path

from kdbench.board.costs import costs_of
from kdbench.board.leaderboard import leaderboard
from kdbench.board.pages import text
from kdbench.board.submissions import read
from tests.support.boards import LARGE, SMALL, submit
from tests.support.helpers import Cli


def test_fronts_over_another_cost_and_never_over_two_machines(tmp_path: Path, cli: Cli) -> None:
    """Here the small student costs more: of each pair of equal accuracy it is off the front, and without it on it."""
    submit(tmp_path / "a", hardware="old box", ms=9.0)
    for student, size in ((SMALL, 3e6), (LARGE, 1e6)):
        place = tmp_path / "a" / "export" / student
        place.mkdir(parents=True)
        told = {"student": student, "files": [{"format": "onnx", "bytes": size}]}
        (place / "export.json").write_text(json.dumps(told))
    found = read([tmp_path])
    over = leaderboard(found, *costs_of(found, "file_mb"))
    assert {(row.student, row.method): (row.cost, row.on_front) for row in over.rows} == {
        (LARGE, "kd"): (1.0, True), (LARGE, "hard"): (1.0, False), (SMALL, "kd"): (3.0, False),
        (SMALL, "hard"): (3.0, False),
    }  # fmt: skip
    assert all(row.on_front for row in leaderboard(found).rows if row.method == "kd")
    assert "front of ONNX file (MB) and accuracy" in text(over) and "| 3 |" in text(over)
    timed = leaderboard(found, *costs_of(found, "latency_ms"))
    assert {row.student for row in timed.rows if row.on_front} == {SMALL}, "the other was not measured"
    shown = json.loads(cli("leaderboard", tmp_path, "--x", "macs", "--json").out)
    assert {row["cost"] for row in shown["rows"]} == {7.0}
    submit(tmp_path / "b", hardware="new box", ms=2.0)
    for x, why in (("latency_ms", "never mixed"), ("ort-int8", "nothing is known of ort-int8")):
        refused = cli("leaderboard", tmp_path, "--x", x)
        assert refused.code == 2 and why in refused.err, refused.err
