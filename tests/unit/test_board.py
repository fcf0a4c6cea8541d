"""Leaderboards: what counts, what counts once, what is not compared, and what reaches a page."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdbench.board.leaderboard import Board, leaderboard
from kdbench.board.pages import page, records, table, write
from kdbench.board.pages import text as markdown
from kdbench.board.protocol import describe as protocol_text
from kdbench.board.protocol import letters, protocol_id, protocol_of
from kdbench.board.pull import config_of, safe
from kdbench.board.submissions import read
from kdbench.errors import BadInput
from kdbench.report.render import escape
from kdbench.run.store import read_result, run_folder, write_result
from kdbench.tracking.record import describe
from tests.support.boards import HYPER, PARAMS, configs, submit
from tests.support.helpers import ROOT, Cli
from tests.support.sweeps import LARGE, SMALL, spec

RECORDS = ROOT / "results" / "records"


def board(*paths: Path | str) -> Board:
    return leaderboard(read(paths))


def numbers(found: Board) -> list[list[str]]:
    """The table without the columns that say by whom and when."""
    rows = list(csv.DictReader(io.StringIO(table(found))))
    return [[value for name, value in row.items() if name not in ("by", "when", "sweeps")] for row in rows]


@pytest.mark.parametrize("record", sorted(path.parent for path in RECORDS.glob("*/pareto.csv")), ids=lambda p: p.name)
def test_a_single_record_says_what_its_own_table_says(record: Path) -> None:
    own = pd.read_csv(record / "pareto.csv").set_index(["student", "method"])
    found = board(record)
    distilled = [row for row in found.rows if row.method != "hard"]
    assert len(distilled) == len(own) and found.notes == ()
    for row in distilled:
        line = own.loc[(row.student, row.method)]
        for name in ("params", "test_acc", "test_acc_lo", "test_acc_hi", "gain", "gain_lo", "gain_hi", "on_front"):
            assert getattr(row, name) == pytest.approx(line[name], abs=1e-12, nan_ok=True), name
        assert row.teacher_acc == pytest.approx(line["teacher_acc"])
        assert [entry.ms for entry in row.latency] == [line["latency_ms"]]
        assert list(row.scores) == [1001 + k for k in range(line["n_seeds"])] and len(row.wandb_runs) == line["n_seeds"]
    hard = {row.student: row.test_acc for row in found.rows if row.method == "hard"}
    assert hard == pytest.approx({student: acc for (student, _), acc in own["baseline_acc"].items()})
    assert [row.rank for row in found.rows] == list(range(1, len(found.rows) + 1))


def test_copies_count_once_and_the_order_of_folders_changes_nothing(tmp_path: Path) -> None:
    submit(tmp_path / "a" / "tiny")
    alone = numbers(board(tmp_path / "a"))
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert numbers(board(tmp_path)) == alone and board(tmp_path).notes == ()
    submit(tmp_path / "c", budget__trials=5, when="2026-02-01")
    submit(tmp_path / "d", hyper={"temperature": 9.0, "alpha": 0.5}, search_seed=1, when="2026-03-01")
    texts = {table(board(*(f"x={tmp_path / name}" for name in order))) for order in ("acd", "dca")}
    assert len(texts) == 1


def test_fresh_seeds_of_two_members_are_pooled_and_repeated_ones_are_not(tmp_path: Path) -> None:
    submit(tmp_path / "alice", when="2026-01-01")
    submit(tmp_path / "bob", search_seed=10, when="2026-01-03")
    (best, *_) = board(f"alice={tmp_path / 'alice'}", tmp_path).rows
    assert sorted(best.scores) == [1001, 1002, 1003, 1011, 1012, 1013]
    assert best.by == ("alice",) and best.when == "2026-01-03"
    submit(tmp_path / "carol" / "tiny", luck="another machine", when="2026-01-02")
    again = board(tmp_path / "alice", tmp_path / "carol")
    assert {len(row.scores) for row in again.rows} == {3}
    assert numbers(again) == numbers(board(tmp_path / "alice"))  # the one given first counts
    assert len(again.notes) == 1 and again.notes[0].startswith("Disputed") and again.rows[0].disputed


def test_an_altered_copy_replaces_nothing_and_is_named(tmp_path: Path) -> None:
    """Better scores, the same times and an earlier date: both are shown, the folder given first counts."""
    submit(tmp_path / "honest", when="2026-02-01")
    shutil.copytree(tmp_path / "honest", tmp_path / "forged")
    for path in (tmp_path / "forged").glob("trials/*/result.json"):
        held = json.loads(path.read_text())
        if held["test_acc"]:
            path.write_text(json.dumps({**held, "test_acc": 0.999}))
    manifest = tmp_path / "forged" / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "finished": "2020-01-01"}))
    found = board(tmp_path / "honest", tmp_path / "forged")
    assert numbers(found) == numbers(board(tmp_path / "honest")) and all(row.disputed for row in found.rows)
    (note,) = found.notes
    assert "99.90% in forged" in note and "in honest" in note and "(disputed)" in markdown(found)


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda run: run["result"].update(test_acc=5.0), "test-acc: should be less than or equal to 1"),
        (lambda run: run["config"].update(seed=1e30), "seed"),
        (lambda run: run["config"]["hyper"].update(alpha=math.nan), "hyper.alpha: should be a finite number"),
        (lambda run: run["result"].update(params=[[1]]), "params"),
        (lambda run: run["result"].update(error=["["] * 3), "error"),
    ],
)
def test_a_run_that_cannot_be_is_left_out_and_named(tmp_path: Path, damage: Callable[[Any], None], why: str) -> None:
    record = shutil.copytree(RECORDS / "digits-resnet50-mobilenetv3-kd", tmp_path / "record")
    lines = (record / "runs.jsonl").read_text().splitlines()
    broken = json.loads(lines[0])
    damage(broken)
    deep = "[" * 100_000
    (record / "runs.jsonl").write_text("\n".join([json.dumps(broken), deep, *lines[1:]]))
    manifest = json.loads((record / "manifest.json").read_text())
    (record / "manifest.json").write_text(json.dumps({**manifest, "hardware": 5, "latency_ms": {"a": "x", "b": -1}}))
    found = board(record)
    assert found.rows and sum("left out" in note for note in found.notes) >= 2
    assert any(why in note and "line 1 of runs.jsonl" in note for note in found.notes), found.notes


def test_check_finds_what_the_runs_do_not_say(tmp_path: Path, cli: Cli) -> None:
    for name in ("digits-resnet50-mobilenetv3-kd", "fashion-mnist", "hinton2015-mnist"):
        assert cli("leaderboard", "check", RECORDS / name).out.startswith("consistent: ")
    record = shutil.copytree(RECORDS / "fashion-mnist", tmp_path / "record")
    lines = [json.loads(line) for line in (record / "runs.jsonl").read_text().splitlines()]
    run = next(run for run in lines if run["config"]["phase"] == "confirm")
    run["result"]["val_acc"] += 0.01
    lines[-1]["config"]["seed"] += 1
    (record / "runs.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (record / "pareto.csv").write_text((record / "pareto.csv").read_text().replace("0.87", "0.97"))
    done = cli("leaderboard", "check", record)
    assert done.code == 1 and f"run {run['result']['id']}" in done.out and "by its result" in done.out
    assert "pareto.csv: the runs give another one" in done.out and "id is not that of the config" in done.out
    paper = shutil.copytree(RECORDS / "fashion-mnist-crd", tmp_path / "paper")
    (paper / "table.csv").write_text((paper / "table.csv").read_text().replace("87.026", "87.5"))
    assert cli("leaderboard", "check", paper).out == "table.csv: the runs give another resnet56:resnet20:kd\n"
    assert cli("leaderboard", "check", RECORDS).code == 2


def test_one_seed_in_two_precisions_is_one_seed(tmp_path: Path) -> None:
    for name, precision in (("a", "fp32"), ("b", "bf16")):
        submit(tmp_path / name, precision=precision)
    found = board(tmp_path)
    assert {len(row.scores) for row in found.rows} == {3} and list(found.protocols["digits"]) == ["A"]
    assert any("12 runs that repeat a seed" in note for note in found.notes)


def test_an_ensemble_competes_under_its_own_protocol() -> None:
    teacher, *_, run = configs(spec(), HYPER)
    ways = [(None, "trained"), ("file:a", "weights given"), ("file:a,file:b", "an ensemble of 2, weights given")]
    found = [protocol_of(run, teacher.model_copy(update={"teacher_id": weights}), 4) for weights, _ in ways]
    assert len({protocol_id(one) for one in found}) == 3
    assert all(says in protocol_text(one, "digits") for one, (_, says) in zip(found, ways, strict=True))


def test_a_papers_runs_take_part_and_its_teachers_are_known_by_their_recipe() -> None:
    found = board(RECORDS / "hinton2015-mnist")
    assert "unknown" not in markdown(found) and len(found.protocols["mnist"]) == 4
    assert any("bf16 and fp32" in note for note in found.notes)
    main = [row for row in found.rows if row.protocol == "A"]
    soft = next(row for row in main if row.hyper == {"temperature": 20.0, "alpha": 0.9} and row.gain == row.gain)
    assert (soft.teacher, soft.n_seeds, soft.verdict.short) == ("hinton_mlp_1200", 5, "helps")  # a teacher a seed
    assert soft.teacher_acc == pytest.approx(1 - 72.4 / 10_000) and soft.gain == pytest.approx(53.8 / 10_000)
    assert [row.teacher for row in main if row.method == "hard"] == [""]
    assert "57,000 training samples (of these, classes 7, 8 alone)" in markdown(found)
    text = markdown(board(RECORDS / "fashion-mnist-crd"))
    assert "3,000 training samples, 1,200 of the 60,000 held out for validation (seed 0)" in text
    assert "A2: 1 seed, where other rows have up to 5: no interval, hence no rank" in text
    assert "| A2 | cifar_resnet56 | 87.6 | hard labels |  |  |  | 1 (fewer) |" in text


def test_teachers_of_one_recipe_are_one_and_hard_labels_have_none(tmp_path: Path) -> None:
    submit(tmp_path / "a")
    submit(tmp_path / "b", teacher_seed=7, search_seed=10)
    submit(tmp_path / "c", search_seed=20, teacher_epochs=9, method="dkd")
    found = board(tmp_path)
    seeds = {(row.protocol, row.method, len(row.scores)) for row in found.rows}
    assert seeds == {("A", "kd", 6), ("A", "hard", 6), ("B", "dkd", 3), ("B", "hard", 3)}


def test_other_peoples_rows_change_no_verdict(tmp_path: Path) -> None:
    submit(tmp_path / "a", lift=0.01)
    for k in range(4):
        submit(tmp_path / f"b{k}", lift=0.05, hyper={"temperature": 5.0 + k, "alpha": 0.5})
    alone, crowd = board(tmp_path / "a"), board(tmp_path)
    mine = {name: row.verdict for row in alone.rows for name in row.trial_ids.values()}
    theirs = {name: row.verdict for row in crowd.rows for name in row.trial_ids.values()}
    assert len(theirs) > len(mine) and {name: theirs[name] for name in mine} == mine


def test_other_protocols_are_not_ranked_together_and_say_why(tmp_path: Path) -> None:
    submit(tmp_path / "short", when="2026-01-01")
    submit(tmp_path / "long", epochs=7, lift=0.05, when="2026-01-02")
    submit(tmp_path / "searched", budget__trials=9, when="2026-01-03")
    found = board(tmp_path)
    assert [row.place for row in found.rows] == [f"{letter}{rank}" for letter in "ABC" for rank in (1, 2, 3, 4)]
    assert [row.place for row in found.rows if row.on_front and row.method == "kd"] == [
        "A1",
        "A2",
        "B1",
        "B2",
        "C1",
        "C2",
    ]
    # hard-label runs of A and C are the same trials: each protocol has its own baseline nevertheless
    hard = {row.protocol: row.trial_ids for row in found.rows if (row.student, row.method) == (SMALL, "hard")}
    assert hard["A"] == hard["C"] != hard["B"]
    text = markdown(found)
    epochs, trials = spec().recipe.epochs, spec().budget.trials
    assert f"differs in recipe.epochs {epochs} → 7." in text and f"differs in budget.trials {trials} → 9." in text
    assert text.count("Not ranked against A") == 2
    assert letters([str(k) for k in range(28)])["27"] == "B2"


def test_latencies_of_different_hardware_stay_apart(tmp_path: Path) -> None:
    submit(tmp_path / "a", hardware="old box", ms=9.0, when="2026-01-01")
    submit(tmp_path / "b", hardware="new box", ms=2.0, when="2026-01-02")
    submit(tmp_path / "c", hardware="old box", ms=8.0, when="2026-01-03")
    rows = board(tmp_path).rows
    assert {tuple(row.latency) for row in rows if row.student == SMALL} == {
        ((2.0, "new box, cpu"), (8.0, "old box, cpu"))
    }
    assert {row.latency for row in rows if row.student == LARGE} == {()}
    assert {row["latency_ms"] for row in records(board(tmp_path))} == {"2.0; 8.0", None}
    assert {row["latency_ms"] for row in records(board(tmp_path / "b"))} == {2.0, None}


def test_names_reach_no_page_as_markup(tmp_path: Path) -> None:
    nasty = "<script>alert(1)</script>|*x* =cmd"
    submit(tmp_path / "a", hardware='<img src=x onerror="1">')
    found = board(f"{nasty}={tmp_path / 'a'}")
    html, text = page(found), markdown(found)
    assert "<script>alert" not in html and "<img" not in html and "&lt;script&gt;alert(1)" in html
    body = [line for line in text.splitlines() if line.startswith("| A")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in body} == {16}
    assert not re.search(r"(?<!\\)<(?!/?(details|summary)>)", text)
    assert escape("_a_b_ [x](y)\n# h") == r"\_a_b\_ \[x\](y) # h"
    cells = list(csv.DictReader(io.StringIO(table(board(f"=1+1={tmp_path / 'a'}")))))
    assert not any(cell.startswith("=") for row in cells for cell in row.values())


def test_the_page_asks_nothing_of_the_network_and_files_do_not_change(tmp_path: Path) -> None:
    submit(tmp_path / "a")
    paths = write(board(tmp_path / "a"), tmp_path / "out")
    before = {name: path.read_bytes() for name, path in paths.items()}
    assert set(before) == {"leaderboard.md", "leaderboard.html", "leaderboard.csv"}
    assert {name: path.read_bytes() for name, path in write(board(tmp_path / "a"), tmp_path / "out").items()} == before
    html = before["leaderboard.html"].decode()
    assert "default-src 'none'" in html and not re.search(r"(src|href)=|url\(|https?:", html)


def test_a_verdict_weaker_than_it_looks_says_why(tmp_path: Path) -> None:
    submit(tmp_path / "a", budget__seeds=1)
    found = board(tmp_path)
    assert "- \\* A1, A2: one seed gives no interval." in markdown(found)
    assert "* A1, A2: one seed gives no interval." in page(found)
    assert [row["verdict"] for row in records(found)] == ["cannot tell", "cannot tell", "", ""]
    assert {row["test_acc_lo"] for row in records(found)} == {None}


def test_what_cannot_count_is_said(tmp_path: Path) -> None:
    sweep = submit(tmp_path / "a")
    name = next(config.id for config in configs(sweep, HYPER) if config.phase == "confirm" and config.method == "kd")
    held = read_result(run_folder(tmp_path / "a", name))
    assert held is not None
    write_result(run_folder(tmp_path / "a", name), held.model_copy(update={"id": "0" * 12}))
    found = board(tmp_path)
    assert any("id is not that of the config" in note for note in found.notes)
    assert any("1 run without a partner" in note for note in found.notes)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "runs.jsonl").write_text("{")
    assert any(note.startswith("b: line 1 of runs.jsonl left out") for note in board(tmp_path).notes)
    for path, words in ((tmp_path / "none", "no folder"), (tmp_path / "b" / "runs.jsonl", "is a file")):
        with pytest.raises(BadInput, match=words):
            read([path])
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match="no sweep in"):
        read([tmp_path / "empty"])


@given(st.data())
def test_a_config_comes_back_from_a_flat_one(data: st.DataObject) -> None:
    every = configs(spec(limit=data.draw(st.none() | st.integers(20, 99)), lr=data.draw(st.floats(1e-5, 1))), HYPER)
    config = data.draw(st.sampled_from(every))
    flat = json.loads(json.dumps(describe(config, sweep="s", attempt=2, extra={"teacher": "test_resnet"})))
    assert config_of(flat).id == config.id == flat["trial_id"]


@given(st.text())
def test_no_name_leads_out_of_the_folder(name: str) -> None:
    found = safe(name)
    assert Path(found).name == found and found not in ("", ".", "..") and safe(name) == safe(found) == found


def test_the_command_line(tmp_path: Path, bench: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    submit(tmp_path / "results" / "tiny")
    done = cli("leaderboard", "--out", "board")
    assert done.code == 0 and "A1" in done.out and (bench / "board" / "leaderboard.md").exists()
    shown = json.loads(cli("leaderboard", "me=results", "--json").out)
    assert [row["by"] for row in shown["rows"]] == ["me"] * 4
    assert shown["rows"] == json.loads(json.dumps(records(board("me=results"))))
    assert {row["params"] for row in shown["rows"]} == {PARAMS[SMALL], PARAMS[LARGE]}
    assert cli("leaderboard", "nowhere").code == 2
    refused = cli("leaderboard", "publish", "--entity", "team", "--project", "kd")
    assert refused.code == 2 and "no W&B key" in refused.err
    assert cli("leaderboard", "pull", "--project", "a/b").code == 2
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    assert "pip install 'kdbench[reports]'" in cli("leaderboard", "publish").err
    help_text = cli("leaderboard", "--help").out
    assert "publish" in help_text and "pull" in help_text and "alice=members/alice" in help_text


def test_neither_torch_nor_wandb_is_loaded() -> None:
    code = f"""import sys
from kdbench.board.leaderboard import leaderboard
from kdbench.board.pages import records, screen
from kdbench.board.submissions import read
records(leaderboard(read([{str(RECORDS / "fashion-mnist")!r}])))
sys.exit(len({{"torch", "timm", "wandb", "wandb_workspaces"}} & set(sys.modules)))"""
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
