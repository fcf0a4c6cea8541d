"""A third party's ladder, pair and methods, as docs/extend.md shows them; and what is said of a bad one."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.support.helpers import ROOT
from tests.support.processes import ended_with, start

WORDS = ["sweep", "--budget", "smoke", "--precision", "fp32", "--workers", "1", "--quiet", "--limit", "60"]
WORDS += ["--trials", "1", "--seeds", "1"]


def plugin(place: Path, loss: str | None = None) -> str:
    """The documented package as an installed distribution; a folder for PYTHONPATH."""
    readme = (ROOT / "docs" / "extend.md").read_text(encoding="utf-8")
    code = re.search(r"```python\n(# my_package.py.*?)```", readme, re.S)
    points = re.search(r"```toml\n(\[project.entry-points.*?)```", readme, re.S)
    assert code and points
    text = (
        code[1]
        .replace("resnet10t", "test_efficientnet")
        .replace("resnet18", "test_vit")
        .replace("resnet50", "test_resnet")
    )
    (place / "my_package.py").write_text(text + (loss or ""))
    info = place / "my_package-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1\n")
    groups = re.sub(r'\[project.entry-points."(.*?)"\]', r"[\1]", points[1])
    (info / "entry_points.txt").write_text(re.sub(r' = "(.*?)".*', r" = \1", groups))
    return str(place)


def here(place: Path, code: int, *words: str) -> str:
    """What the command line says where the package is installed."""
    path = os.pathsep.join([str(place), os.environ["PYTHONPATH"]])
    about = {"PYTHONPATH": path, "KDBENCH_CACHE": str(place / "cache"), "WANDB_MODE": "disabled"}
    return ended_with(start(words, place / "log", **about), place / "log", code)


def test_the_documented_package_sweeps(tmp_path: Path) -> None:
    """A loss, and a method with a part to train, beside each other; the part is not shipped."""
    plugin(tmp_path)
    out = ["--out", str(tmp_path / "results"), "--name", "mine", "--wandb", "disabled"]
    here(tmp_path, 0, *WORDS, "--pair", "ours", "--method", "mse,hint", *out)
    rows = (tmp_path / "results/mine/pareto.csv").read_text().splitlines()
    assert [sum(f",{name}," in row for row in rows[1:]) for name in ("mse", "hint")] == [2, 2]
    logs = [json.loads(path.read_text().splitlines()[-1]) for path in tmp_path.glob("results/mine/*/*/metrics.jsonl")]
    assert any("hint" in log["parts"] for log in logs)
    files = [load_file(path) for path in tmp_path.glob("results/mine/*/*/model.safetensors")]
    assert files and not any("project" in name for held in files for name in held)


@pytest.mark.parametrize(
    ("loss", "told"),
    [
        ('@method("mse")\ndef mse(student, teacher): return 0', "fails on a batch"),
        pytest.param(
            '@method("mse")\ndef mse(student, teacher, targets, batch): return student.logits',
            "returns",
            marks=pytest.mark.slow,
        ),
        pytest.param("del mse", "failed", marks=pytest.mark.slow),
    ],
)
def test_a_bad_loss_is_told_before_anything_is_trained(tmp_path: Path, loss: str, told: str) -> None:
    plugin(tmp_path, "\n" + loss + "\n")
    said = here(tmp_path, 2, *WORDS, "--pair", "ours", "--method", "mse", "--out", str(tmp_path / "results"))
    assert told in said and "my_package:mse" in said and "Traceback" not in said
    assert not (tmp_path / "results").exists()


def test_doctor_names_plugins_and_what_is_wrong_with_one(tmp_path: Path) -> None:
    plugin(tmp_path)
    points = tmp_path / "my_package-1.dist-info/entry_points.txt"
    points.write_text(points.read_text() + "\n[kdbench.methods]\nbad = nothing_of_this_name:X\n")
    said = here(tmp_path, 1, "doctor", "--json")
    checks = {check["name"]: check for check in json.loads(said)}
    assert "nothing_of_this_name" in checks["kdbench.methods"]["found"]
    assert "my_package:" in checks["kdbench.pairs"]["found"]
    assert checks["digits"]["state"] == "ok"
