"""A real online sweep whose W&B server dies midway: the sweep ends well, and no metric is lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kdbench.board.leaderboard import leaderboard
from kdbench.board.pull import pull
from kdbench.board.submissions import read
from kdbench.tracking import sync
from tests.support.processes import ended_with, start, wait_for
from tests.support.sweeps import command, lines
from tests.support.wandb_standin import KEY, StandIn


@pytest.mark.slow
def test_an_online_sweep_loses_no_metric_when_the_server_dies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = command(tmp_path, tmp_path / "cache", "--wandb", "online", "--wandb-project", "kd", "--name", "tiny")
    log = tmp_path / "log"
    with StandIn() as first:
        account = {"WANDB_API_KEY": KEY, "WANDB_BASE_URL": first.url, "HOME": str(tmp_path / "home")}
        process = start(words, log, **account)
        wait_for(lambda: sum(run["exit"] is not None for run in first.runs.values()) >= 2, process, log)
        first.__exit__(None, None, None)  # nobody answers any more
        ended_with(process, log, 0)
    kept = json.loads(json.dumps({name: len(run["history"]) for name, run in first.runs.items()}))
    folders = sorted(path.parent for path in (tmp_path / "tiny").glob("trials/*/result.json"))
    assert 2 <= len(first.runs) < len(folders)  # it died midway

    with StandIn() as second:
        second.runs |= first.runs  # the server is back, with what it had
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        report = sync(tmp_path / "tiny", base_url=second.url, notify=lambda _: None)
        pulled = pull(project="kd", out=tmp_path / "pulled", base_url=second.url)
    assert report.ok and report.uploaded and set(report.already) <= set(kept)
    for folder in folders:
        result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        there = second.runs[result["wandb_run"]]
        seen = {row["epoch"]: (row["train_loss"], row["val_acc"]) for row in there["history"].values()}
        here = {row["epoch"]: (row["train_loss"], row["val_acc"]) for row in lines(folder / "metrics.jsonl")}
        assert seen == here and there["exit"] == 0
        told = {key: value for key, value in result.items() if key in there["summary"]}
        assert {key: there["summary"][key] for key in told} == told and "val_acc" in told
    assert (pulled.trials, pulled.unreadable) == (len(folders), 0)
    local, back = (leaderboard(read([path])).rows for path in (tmp_path / "tiny", tmp_path / "pulled"))
    assert [(row.place, row.scores, row.trial_ids) for row in back] == [
        (row.place, row.scores, row.trial_ids) for row in local
    ]
