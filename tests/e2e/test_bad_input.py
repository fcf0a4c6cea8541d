"""Every kind of bad input through the real command line: one clear line, the right exit code, nothing written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from tests.support.helpers import Cli, run_process, write_idx, write_image_folder
from tests.support.sweeps import WHOLE
from tests.support.wandb_files import find_runs, read_offline

USER, MACHINE = 2, 1
PAIR = ["--pair", "test_resnet:test_efficientnet"]
SMOKE = ["sweep", *PAIR, "--budget", "smoke", "--wandb", "disabled", "--quiet"]
FEW = ["--limit", "60", "--trials", "1", "--seeds", "1"]


class Case(NamedTuple):
    """A command line, what must be prepared for it, and what it must answer."""

    says: str
    arguments: list[str]
    prepare: Callable[[Path], object] = lambda bench: None
    code: int = USER


def text(name: str, content: str | bytes) -> Callable[[Path], object]:
    """Prepares a file."""
    return lambda bench: (bench / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def yaml(says: str, content: str | bytes) -> Case:
    """A sweep from a file with this content."""
    return Case(says, ["sweep", "--config", "x.yaml"], text("x.yaml", content))


BOMB = (
    "a0: &a0 [x]\n" + "".join(f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 10)}]\n" for k in range(1, 9)) + "pair: *a8\n"
)


def sweep(*arguments: str) -> list[str]:
    """A sweep of the tiny pair with something wrong in it."""
    return [*SMOKE, *arguments]


def pair(value: str) -> list[str]:
    """A sweep of this pair."""
    return ["sweep", "--pair", value, "--budget", "smoke", "--quiet"]


ASKED: dict[str, Case] = {
    # names
    "unknown teacher": Case("unknown teacher 'resnet500'", pair("resnet500:mobilenetv3")),
    "unknown student": Case("did you mean 'mobilenetv3'?", pair("resnet50:mobilnetv3")),
    "unknown second student": Case("unknown student 'nothing_like_it'", pair("resnet50:resnet18,nothing_like_it")),
    "pair without students": Case("names no students", pair("resnet50:")),
    "pair without teacher": Case("names no teacher", pair(":mobilenetv3")),
    "pair without colon": Case("has no colon", pair("resnet50")),
    "no pair": Case("no pair given", ["sweep"]),
    "unknown data set": Case("did you mean 'digits'?", sweep("--dataset", "digitz")),
    "unknown method": Case("unknown method 'kdd'", sweep("--method", "kdd")),
    "method is the baseline": Case("'hard' is the baseline", sweep("--method", "hard")),
    "unknown sampler": Case(
        "sampler: should be 'tpe', 'random', 'grid', 'qmc' or 'gp', not 'bayes'", sweep("--sampler", "bayes")
    ),
    "unknown pruner": Case("pruner", sweep("--pruner", "hyperband")),
    "unknown budget": Case("did you mean 'quick'?", sweep("--budget", "quik")),
    "unknown stem": Case("stem", sweep("--stem", "huge")),
    "unknown precision": Case("precision", sweep("--precision", "fp8")),
    "unknown W&B mode": Case(
        "wandb: should be 'offline', 'online' or 'disabled', not 'maybe'", sweep("--wandb", "maybe")
    ),
    "unknown device": Case("device 'tpu9'", sweep("--device", "tpu9")),
    # ranges
    "temperature zero": Case("temperature must be above 0, not 0", sweep("--temperature", "0")),
    "temperature negative": Case("temperature must be above 0, not -4", sweep("--temperature", "-4,4")),
    "alpha above one": Case("must lie in [0, 1], not at 1.5", sweep("--alpha", "0.5..1.5")),
    "alpha below zero": Case("must lie in [0, 1], not at -0.1", sweep("--alpha", "-0.1")),
    "reversed range": Case("is reversed, write 1..20", sweep("--temperature", "20..1")),
    "empty list": Case("no value given", sweep("--temperature", "")),
    "hole in a list": Case("is not a number", sweep("--temperature", "1,,4")),
    "not a number": Case("'warm' is not a number", sweep("--temperature", "warm")),
    "infinite": Case("not a finite number", sweep("--temperature", "1..inf")),
    "grid over a range": Case("needs lists of values", sweep("--sampler", "grid")),
    "no trials": Case("budget.trials", sweep("--trials", "0")),
    "no seeds": Case("budget.seeds", sweep("--seeds", "0")),
    "trials in words": Case("trials: should be a valid integer", sweep("--trials", "many")),
    "negative epochs": Case("recipe.epochs", sweep("--epochs", "-3")),
    "zero learning rate": Case("recipe.lr", sweep("--lr", "0")),
    "empty batch": Case("recipe.batch-size", sweep("--batch-size", "0")),
    "too few samples": Case("limit", sweep("--limit", "3")),
    "no workers": Case("workers must be", sweep("--workers", "0")),
    # options and files
    "unknown option": Case("No such option", sweep("--temprature", "4")),
    "unknown verb": Case("No such command", ["swep"]),
    "unknown listing": Case("'teachers'", ["ls", "teachers"]),
    "set of an unknown key": Case("did you mean 'trials'", sweep("--set", "budget.trails=4")),
    "set without value": Case("write key=value", sweep("--set", "trials")),
    "set of broken YAML": Case("not valid YAML (line 1", sweep("--set", "temperature=[1,")),
    "hyper-parameter of another method": Case("unknown hyper-parameter of kd 'beta'", sweep("--set", "space.beta=2")),
    "missing config": Case("no config file 'nowhere.yaml'", ["sweep", "--config", "nowhere.yaml"]),
    "misspelt named sweep": Case("did you mean 'quick'?", ["sweep", "--config", "quikc"]),
    "config with an unknown key": yaml("did you mean 'epochs'?", "pair: resnet50:resnet18\nepocs: 3\n"),
    "config with broken YAML": yaml("x.yaml: not valid YAML (line 2", "pair: a:b\n  epochs: [\n"),
    "config that is a list": yaml("expected 'key: value' lines", "- a\n"),
    "config that is no text": yaml("not a text file", b"\xff\xfe\x00\x81"),
    "config with a number for a key": yaml("the key 1 is no name", "1: 2\n"),
    "config with a number for a name": yaml("name: should be a valid string, not 2024", "pair: a:b\nname: 2024\n"),
    "config with a number for a section": yaml("recipe must hold 'key: value' lines", "pair: a:b\nrecipe: 3\n"),
    "config nested deeply": yaml("nested too deeply", "pair: " + "[" * 5000),
    "config of aliases of aliases": yaml("aliases of aliases", BOMB),
    "storage is no URL": Case("is no database URL", sweep("--storage", "optuna.db")),
    "storage with a port in words": Case("'notaport'", sweep("--storage", "postgresql+psycopg://h:notaport/x")),
    "name of the records' folder": Case("choose another", sweep("--name", "records")),
    "name with a slash": Case("name '../mine'", sweep("--name", "../mine")),
    "status of an unknown sweep": Case("no sweep 'mine'", ["status", "mine"]),
    "report of an unknown sweep": Case("no sweep 'mine'", ["report", "mine"]),
    "a stray comma": Case("a comma with no student", pair("test_resnet:test_efficientnet,,")),
    "one sample a step": Case("2 samples a step or more", sweep("--batch-size", "1")),
    "a model option with a typo": Case(
        "has no option 'drop_rte'", sweep("--set", "recipe.model-options={drop_rte: 0.1}")
    ),
    "an option of an earlier release": Case("use --workers", sweep("--pack", "2")),
    "sync of an unknown sweep": Case("no sweep 'mine'", ["sync", "mine"]),
}


def idx(name: str, *, damage: Callable[[bytes], bytes] = bytes, labels: int = 40) -> Callable[[Path], object]:
    """Prepares kmnist as IDX files, the training images damaged."""

    def prepare(bench: Path) -> None:
        folder, random = bench / "data" / name, np.random.default_rng(0)
        for part in ("train", "t10k"):
            write_idx(folder / f"{part}-images-idx3-ubyte.gz", random.integers(0, 255, (40, 28, 28)))
            write_idx(folder / f"{part}-labels-idx1-ubyte.gz", np.arange(labels) % 10)
        images = folder / "train-images-idx3-ubyte.gz"
        images.write_bytes(damage(images.read_bytes()))

    return prepare


def broken_image(bench: Path) -> None:
    """A folder data set with one file that is no image."""
    write_image_folder(bench / "images", classes=2, per_class=30)
    (bench / "images" / "class1" / "7.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"no image at all" * 9)


def damaged_sweep(bench: Path) -> None:
    """A sweep whose spec is cut off."""
    (bench / "results" / "mine").mkdir(parents=True)
    (bench / "results" / "mine" / "sweep.json").write_text("{")


def other_weights(bench: Path) -> None:
    """Weights of another network."""
    import torch
    from safetensors.torch import save_file

    save_file({"fc.weight": torch.zeros(10, 4), "fc.bias": torch.zeros(10)}, bench / "other.safetensors")


def numbered_weights(bench: Path) -> None:
    """Tensors without names."""
    import torch

    torch.save({1: torch.zeros(2)}, bench / "numbered.pt")


def folder(name: str) -> list[str]:
    """A sweep over a folder of images."""
    return sweep("--dataset", f"folder:{name}")


KMNIST = sweep("--dataset", "kmnist")
GIVEN: dict[str, Case] = {
    "undecodable image": Case("7.png", folder("images"), broken_image),
    "missing data": Case("not on this machine", KMNIST, code=MACHINE),
    "truncated IDX file": Case("train-images", KMNIST, idx("kmnist", damage=lambda old: old[: len(old) // 2])),
    "labels that do not match": Case("not the published file", KMNIST, idx("kmnist", labels=30)),
    "missing weights file": Case("no such file", sweep("--teacher-weights", "nowhere.safetensors")),
    "damaged weights file, dry": Case(
        "x.safetensors", sweep("--dry-run", "--teacher-weights", "x.safetensors"), text("x.safetensors", "nothing")
    ),
    "weights by number": Case("named tensors", sweep("--teacher-weights", "numbered.pt"), numbered_weights),
    "weights of another network": Case(
        "other.safetensors", sweep("--teacher-weights", "other.safetensors"), other_weights
    ),
    "out is a file": Case("results", sweep(), text("results", "a file in its place"), code=MACHINE),
    "cache is a file": Case("cache", sweep("--cache", "kept"), text("kept", "a file in its place"), code=MACHINE),
    "unknown database": Case("storage", sweep("--storage", "oracle9://nowhere/x")),
    "unreachable database": Case(
        "storage", sweep("--storage", "postgresql+psycopg://nobody@127.0.0.1:9/x"), code=MACHINE
    ),
    "damaged sweep": Case("sweep.json", ["status", "mine"], damaged_sweep, code=MACHINE),
}


@pytest.fixture
def place(bench: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with its own, empty, data folder; nothing is downloaded."""
    (bench / "data").mkdir()
    monkeypatch.setenv("KDBENCH_DATA", str(bench / "data"))
    monkeypatch.setenv("KDBENCH_DOWNLOAD", "0")
    return bench


def contents(root: Path) -> dict[str, bytes]:
    """Every file below ``root`` but the cache's, which any run may fill."""
    kept = (path for path in root.rglob("*") if path.is_file() and "cache" not in path.relative_to(root).parts)
    return {str(path.relative_to(root)): path.read_bytes() for path in kept}


def check(case: Case, code: int, out: str, err: str) -> None:
    """One line that says it, no traceback, nothing on stdout."""
    assert case.says in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert "Traceback" not in out + err
    assert "internal error" not in err
    assert out == ""
    assert code == case.code


@pytest.mark.parametrize("case", [pytest.param(case, id=name) for name, case in {**ASKED, **GIVEN}.items()])
def test_bad_input_is_one_line_and_writes_nothing(case: Case, place: Path, cli: Cli) -> None:
    case.prepare(place)
    before = contents(place)
    check(case, *cli(*case.arguments))
    assert contents(place) == before


def test_the_same_from_a_shell(place: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    told = run_process(*SMOKE, KDBENCH_CHECKPOINT_SECONDS="abc")  # read when the engine is imported
    check(Case("KDBENCH_CHECKPOINT_SECONDS=abc: give a number of seconds", []), *told)
    monkeypatch.setenv("WANDB_MODE", "banana")
    told = cli("sweep", *PAIR, "--budget", "smoke", "--quiet")
    check(Case("wandb: should be 'offline', 'online' or 'disabled', not 'banana'", []), *told)
    assert not (place / "results").exists()


def test_a_name_that_holds_another_sweep_is_refused_with_the_difference(place: Path, finished: Path, cli: Cli) -> None:
    before = contents(place)
    refused = cli("sweep", *WHOLE[:-1], "--quiet", "--budget", "smoke", "--seeds", "1", "--temperature", "3")
    check(Case("budget.seeds: stored 2, asked 1", []), *refused)
    assert "fixed.temperature: stored nothing, asked 3" in refused.err
    assert "--name" in refused.err
    assert contents(place) == before


def test_a_sweep_whose_trials_all_diverge_says_so(place: Path, cli: Cli) -> None:
    done = cli(*SMOKE, "--lr", "1e9", "--limit", "60")
    assert done.code == 1 and "every search trial failed" in done.err and "non-finite" in done.err
    assert (
        "2 of 2 search trials failed (diverged, say) and left out: test_efficientnet kd 2."
        in cli("report", "digits-test_resnet-test_efficientnet-kd").out
    )


SECRETS = [
    "postgresql+psycopg://:hunter2@127.0.0.1:9/x",
    "postgresql+psycopg://me:a hunter2?'@127.0.0.1:9/x",
    "postgresql+psycopg://127.0.0.1:9/x?user=me&password=hunter2",
    "oracle9://me:hunter2@nowhere/x",
]


def test_passwords_are_neither_shown_nor_written(place: Path, cli: Cli) -> None:
    for url in SECRETS:
        refused = cli(*SMOKE, "--storage", url)
        assert refused.code in (USER, MACHINE) and "***" in refused.err and "hunter2" not in refused.err
    url = f"sqlite:///{place}/q.db?password=hunter2"
    done = cli("sweep", *PAIR, "--budget", "smoke", *FEW, "--storage", url, "--name", "mine")
    told = [done, cli("status", "mine"), cli("record", "mine")]
    assert [each.code for each in told] == [0, 0, 0] and "hunter2" not in str(told)
    assert (place / "q.db").exists() and not [name for name, held in contents(place).items() if b"hunter2" in held]


@pytest.mark.slow
def test_the_environment_names_no_run(place: Path) -> None:
    arguments = [argument for argument in SMOKE if argument not in ("--wandb", "disabled")]
    stray = {"WANDB_RUN_ID": "one", "WANDB_SWEEP_ID": "s1", "WANDB_TAGS": "x" * 99, "WANDB_PROJECT": "team-project"}
    assert run_process(*arguments, "--limit", "60", WANDB_MODE="offline", **stray).code == 0
    runs = [read_offline(path) for path in find_runs(place / "results/digits-test_resnet-test_efficientnet-kd")]
    assert len({run.run_id for run in runs}) == len(runs) >= 8 and {run.project for run in runs} == {"team-project"}
    off = run_process(*arguments, "--limit", "60", "--name", "off", WANDB_MODE="disabled")
    assert off.code == 0 and not list((place / "results/off").rglob("*.wandb"))


@pytest.mark.slow
def test_online_without_a_network_goes_on_offline_and_says_so_once(place: Path) -> None:
    arguments = [argument for argument in SMOKE if argument not in ("--wandb", "disabled")]  # heard in spite of --quiet
    done = run_process(*arguments, "--wandb", "online", "--limit", "60", WANDB_API_KEY="0" * 40)
    assert done.code == 0, done.err
    assert sum("offline" in line for line in done.err.splitlines()) == 1
    assert any((place / "results").rglob("run-*.wandb"))
