"""Leaderboards in W&B, with the real client against a stand-in server: publish, publish again, pull."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kdbench.board.leaderboard import Board, leaderboard
from kdbench.board.pages import records
from kdbench.board.publish import publish
from kdbench.board.pull import pull
from kdbench.board.submissions import read
from kdbench.config import EpochLog
from kdbench.errors import BadInput, MachineFault
from kdbench.run.launch import WandbOptions
from kdbench.run.observers import wandb_id
from kdbench.sweeps.types import Sweep
from kdbench.tracking import WandbObserver
from tests.support.boards import HYPER, configs, result, submit
from tests.support.helpers import Cli
from tests.support.sweeps import SMALL
from tests.support.wandb_standin import ENTITY, KEY, StandIn

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:wandb_workspaces")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[StandIn]:
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    with StandIn() as standin:
        monkeypatch.setenv("WANDB_BASE_URL", standin.url)
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        before = {name: value for name, value in os.environ.items() if name.startswith("WANDB_")}
        yield standin
        assert {name: value for name, value in os.environ.items() if name.startswith("WANDB_")} == before
    assert not (tmp_path / "home").exists()


def board(*paths: Path | str) -> Board:
    return leaderboard(read(paths))


def upload(sweep: Sweep, root: Path, **more: Any) -> None:
    """Every run of ``boards.submit``'s sweep, as its workers would have recorded it online."""
    said: list[str] = []
    options = WandbOptions(mode="online", project="kd", entity=ENTITY)
    observer = WandbObserver(root, sweep.name, options, said.append, sweep.pair.teacher)
    for config in configs(sweep, HYPER):
        observer.start(config, 1, "")
        observer.epoch(config, EpochLog(epoch=1, lr=0.1, train_loss=1, train_acc=0.5, val_loss=1, val_acc=0.5))
        observer.end(config, result(config, wandb_run=wandb_id(config.id, sweep.name, 1), **more))
    observer.close()
    assert said == []


def views(server: StandIn) -> list[tuple[str, str]]:
    return sorted((view["type"], view["displayName"]) for view in server.views.values())


def test_publishing_again_updates_and_duplicates_nothing(tmp_path: Path, server: StandIn) -> None:
    submit(tmp_path / "a")
    first = board(tmp_path / "a")
    done = publish(first, project="kd", entity=ENTITY)
    (name,) = server.runs
    assert done.changed and done.rows == 4 and done.run.endswith(name)
    run = server.runs[name]
    assert (run["jobType"], run["exit"], run["summary"]["rows"]) == ("leaderboard", 0, 4)
    sent = json.loads(server.stored[run["summary"]["leaderboard"]["path"]])
    assert [dict(zip(sent["columns"], row, strict=True)) for row in sent["data"]] == records(first)
    (version,) = server.artifacts["leaderboard"]
    assert version["type"] == "leaderboard" and version["state"] == "COMMITTED"
    assert sorted(version["aliases"]) == [f"content-{run['summary']['content']}", "latest"]
    both = [("project-view", "kdbench leaderboard"), ("runs", "kdbench leaderboard")]
    assert views(server) == both

    again = publish(board(tmp_path / "a"), project="kd", entity=ENTITY)
    assert again == done._replace(changed=False)
    assert (len(server.runs), len(server.artifacts["leaderboard"]), len(run["history"])) == (1, 1, 1)
    assert views(server) == both

    for view in server.views.values():  # as if both had been opened and saved in W&B's app of tomorrow
        view["spec"] = json.dumps({"version": 99, "blocks": []})
    submit(tmp_path / "b", search_seed=10, when="2026-02-02")
    more = publish(board(tmp_path), project="kd", entity=ENTITY)
    assert more.changed and (more.run, more.report, more.view) == (done.run, done.report, done.view)
    assert [version["aliases"] & {"latest"} for version in server.artifacts["leaderboard"]] == [set(), {"latest"}]
    publish(first, project="kd", entity=ENTITY)  # back to what was there first: that version again, no third one
    assert [version["aliases"] & {"latest"} for version in server.artifacts["leaderboard"]] == [{"latest"}, set()]
    assert len(server.runs) == 1 and views(server) == both


def test_the_report_has_the_table_and_the_panels(tmp_path: Path, server: StandIn) -> None:
    submit(tmp_path / "a")
    publish(board(f"<b>|x={tmp_path / 'a'}"), project="kd")
    (report,) = (view for view in server.views.values() if view["type"] == "runs")
    (view,) = (view for view in server.views.values() if view["type"] == "project-view")
    blocks = json.loads(report["spec"])["blocks"]
    (text,) = (block["content"] for block in blocks if block["type"] == "markdown-block")
    assert "| A1 |" in text and " ± " in text and "<b>" not in text.replace(r"\<b", "") and SMALL in text
    grids = [block["metadata"] for block in blocks if block["type"] == "panel-grid"]
    panels = [panel for grid in grids for panel in grid["panelBankSectionConfig"]["panels"]]
    kinds = ["Weave", "Scatter Plot", "Run Comparer", "Parallel Coordinates Plot"]
    assert [panel["viewType"] for panel in panels] == kinds
    plot, lines = panels[1]["config"], panels[3]["config"]
    assert (plot["xAxis"], plot["yAxis"], plot["xAxisLogScale"]) == ("summary:params", "summary:test_acc", True)
    axes = ["config:temperature.value", "config:alpha.value", "summary:params", "summary:val_acc"]
    assert [column["accessor"] for column in lines["columns"]] == axes
    chosen = [(grid["runSets"][0]["filters"]["filters"][0]) for grid in grids]
    assert [(one["key"]["name"], one["value"]) for one in chosen] == [
        ("jobType", "leaderboard"),
        ("jobType", "confirm"),
        ("jobType", "search"),
    ]
    sections = json.loads(view["spec"])["section"]["panelBankConfig"]["sections"]
    assert [panel["viewType"] for section in sections for panel in section["panels"]] == kinds


def test_pulled_rows_are_the_local_ones_and_reconcile_with_them(
    tmp_path: Path, server: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kdbench.board.pull._PAGE", 5)
    sweep = submit(tmp_path / "local" / "tiny")
    upload(sweep, tmp_path)
    odd = server.runs[next(name for name, run in server.runs.items() if run["jobType"] == "search")]
    server.runs["odd"] = odd | {"name": "odd", "config": odd["config"] | {"seed": {"value": 77}}}  # not its trial's
    server.runs["busy"] = odd | {"name": "busy", "summary": {}}
    server.runs["other"] = odd | {"name": "other", "jobType": "train"}  # somebody else's run in the same project
    server.asked.clear()
    done = pull(project="kd", entity=ENTITY, out=tmp_path / "pulled")
    assert server.asked["Runs"] == -(-(len(server.runs) - 1) // 5) and server.asked["Run"] == 0  # page by page
    assert (done.trials, done.sweeps) == (len(configs(sweep, HYPER)), 1)
    assert (done.unfinished, done.unreadable) == (1, 1)

    local, pulled = board(tmp_path / "local"), board(tmp_path / "pulled")
    skipped = ("by", "when", "wandb_runs", "latency_ms", "latency_hardware")  # what only one side knows

    def rows(found: Board) -> list[dict[str, Any]]:
        return [{key: value for key, value in row.items() if key not in skipped} for row in records(found)]

    assert rows(pulled) == rows(local) and {row.by for row in pulled.rows} == {(ENTITY,)}
    assert {len(row.wandb_runs) for row in pulled.rows} == {3}
    merged = board(tmp_path / "local", tmp_path / "pulled")
    assert rows(merged) == rows(local) and merged.notes == ()
    assert {row.by for row in merged.rows} == {(ENTITY,)}
    assert [row.latency for row in merged.rows] == [row.latency for row in local.rows]

    gone = [name for name, run in server.runs.items() if run["jobType"] == "search"]
    for name in gone:
        del server.runs[name]
    again = pull(project="kd", entity=ENTITY, out=tmp_path / "pulled")
    assert again.trials == done.trials - len(gone) + 2  # without "odd" and "busy"
    assert rows(board(tmp_path / "local", tmp_path / "pulled")) == rows(local)  # a part of a sweep is no other protocol
    for name in set(server.runs) - {"other"}:
        del server.runs[name]
    assert pull(project="kd", entity=ENTITY, out=tmp_path / "pulled").sweeps == 0
    assert not list((tmp_path / "pulled").rglob("runs.jsonl"))  # what is gone from W&B is gone here


def test_a_server_that_is_gone_or_knows_no_such_project_is_said(tmp_path: Path, server: StandIn, cli: Cli) -> None:
    with pytest.raises(BadInput, match="no W&B project someone/none"):
        pull(project="none", out=tmp_path / "pulled")
    submit(tmp_path / "a")
    server.refuse.add("upsertView")
    with pytest.raises(MachineFault, match="could not be written in someone/kd"):
        publish(board(tmp_path / "a"), project="kd")
    server.refuse.clear()
    assert not publish(board(tmp_path / "a"), project="kd").changed  # the rest, and nothing twice
    assert (len(server.runs), len(server.artifacts["leaderboard"]), len(server.views)) == (1, 1, 2)
    done = cli("leaderboard", "publish", tmp_path / "a", "--project", "kd", "--json")
    assert done.code == 0 and json.loads(done.out)["changed"] is False
    server.__exit__(None, None, None)
    refused = cli("leaderboard", "publish", tmp_path / "a", "--project", "kd")
    assert refused.code == 1 and "cannot be used now" in refused.err
