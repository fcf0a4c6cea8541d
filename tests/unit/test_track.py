"""How runs are named and described in W&B."""

from __future__ import annotations

import pytest

from kdbench.config import DataConfig, EpochLog, Phase, Recipe, RunConfig
from kdbench.errors import BadInput
from kdbench.run.observers import wandb_id
from kdbench.tracking.client import check_name
from kdbench.tracking.record import describe, flatten, history_row, summary_row, tags


def trial(phase: Phase = "search", **more: object) -> RunConfig:
    fields = {"data": DataConfig(name="digits"), "model": "resnet18", "teacher": "resnet50", "method": "kd"}
    fields |= {"hyper": {"temperature": 4.0, "alpha": 0.5}, "recipe": Recipe(), "seed": 1, "phase": phase}
    return RunConfig.model_validate(fields | more)


def test_run_ids_are_valid_and_differ_by_trial_attempt_and_sweep() -> None:
    ids = [wandb_id(t, s, a) for t in ("0" * 12, "f" * 12) for s in ("one", "a/b: #?%\\") for a in (1, 2, 11)]
    assert len(set(ids)) == len(ids)
    assert not set("/\\#?%:") & set("".join(ids))


def test_config_row_holds_every_field_of_the_trial_flat() -> None:
    config = trial()
    row = describe(config, sweep="s", attempt=3, extra={"git": {"rev": "abc"}})
    assert row["recipe_lr"] == config.recipe.lr and row["data_name"] == row["dataset"] == "digits"
    assert (row["temperature"], row["hyper_alpha"], row["student"], row["git_rev"]) == (4.0, 0.5, "resnet18", "abc")
    assert row["retry_of"] == wandb_id(config.id, "s", 2) and row["trial_id"] == config.id
    assert not any(isinstance(value, dict) or "." in key for key, value in row.items())
    fields = flatten(config.model_dump(mode="json"))
    assert fields == {key: row[key] for key in fields}
    assert "retry_of" not in describe(config, sweep="s", attempt=1, extra={})


def test_tags_are_short_and_the_users_are_added(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_TAGS", "mine, " + "y" * 99)
    long = trial("teacher", model="resnet50", teacher=None, method="hard", data=DataConfig(name="folder:" + "x" * 200))
    row = describe(long, sweep="s", attempt=1, extra={})
    assert (row["teacher"], row["student"]) == ("resnet50", None)  # its own teacher and nobody's student
    assert tags(row) == (("folder:" + "x" * 57), "resnet50", "hard", "teacher", "mine", "y" * 64)


def test_rows_drop_what_was_not_measured() -> None:
    log = EpochLog(epoch=2, lr=0.1, train_loss=1, train_acc=0, val_loss=1, val_acc=0, val_kl=0.0, parts={"soft": 2})
    row = history_row(log)
    assert row["val_kl"] == 0.0 and row["parts/soft"] == 2 and "val_agreement" not in row
    assert summary_row({"ece": float("nan"), "seed": 1}) == {"ece": None, "seed": 1}


@pytest.mark.parametrize("name", ["", "a/b", "x" * 129])
def test_bad_names_are_refused(name: str) -> None:
    with pytest.raises(BadInput, match="W&B project"):
        check_name("project", name)
