"""A finished sweep is read on further test sets: nothing is trained again, and every number is the networks' own."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image

import kdbench
from kdbench.config import RunConfig
from kdbench.data.corruptions import corrupt
from kdbench.data.readers import digits
from kdbench.data.samples import Fit, cut_test
from kdbench.run.observers import Observers
from kdbench.run.store import load_runs
from tests.support.helpers import Cli
from tests.support.sweeps import LARGE, SMALL, TEACHER, sweep_here


class Starts(Observers):
    """Counts what is started."""

    count = 0

    def start(self, config: RunConfig, attempt: int, label: str) -> None:
        self.count += 1


def test_winners_are_read_on_further_test_sets_once(finished: Path, tmp_path: Path, cli: Cli) -> None:
    test = cut_test(digits(), "test")
    for row, (image, label) in enumerate(zip(test.images, test.labels, strict=True)):
        place = tmp_path / "photos" / str(label)
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[..., 0]).save(place / f"{row:04}.png")
    before = {run.config.id: run.result for run in load_runs(finished)}
    started = []
    for _ in range(2):
        started.append(Starts())
        sweep_here(tmp_path, started[-1], pair=f"{TEACHER}:{SMALL},{LARGE}", name="whole",
                   also_test=("corruptions", f"folder:{tmp_path / 'photos'}"))  # fmt: skip
    runs = {run.config.id: run for run in load_runs(finished)}
    confirm = [run for run in runs.values() if run.config.phase == "confirm"]
    assert [each.count for each in started] == [len(confirm), 0], "read once"
    assert {k: run.result.model_copy(update={"shifted": {}, "wandb_run": None}) for k, run in runs.items()} == {
        k: each.model_copy(update={"wandb_run": None}) for k, each in before.items()
    }, "nothing else changed"
    for run in confirm:
        accs = run.result.shifted
        assert len(accs) == 41 and run.result.test_acc == next(accs[name] for name in accs if "photos@" in name)
    student = kdbench.load(finished).student(SMALL)
    fit = Fit(student.run.config.recipe.input_size or 32, 1, "resize")
    with torch.inference_mode():
        said = [student.network(student.preprocess(corrupt(fit(image), "contrast", 4, row))).argmax(1).item()
                for row, image in enumerate(test.images)]  # fmt: skip
    assert student.run.result.shifted["contrast 4"] == float((said == test.labels).mean())
    report = cli("report", finished)
    assert "Under shift" in report.out and "Under shift" in (finished / "report.html").read_text()
    assert cli("leaderboard", "check", finished).code == 0, "the tables follow from the runs"
