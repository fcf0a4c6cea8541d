"""Every paper's file: it loads, its protocol is runnable, its numbers are the published ones."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from kdbench.catalog.pairs import CIFAR_NETS, cifar_model
from kdbench.methods import METHODS
from kdbench.models import known_models
from kdbench.papers.load import load_paper, paper_files
from kdbench.papers.plan import Protocol

PAPERS = sorted(paper_files())
RECORDS = Path(__file__).parents[2] / "results" / "records"

# One number of every row of the tables, typed from the sources a second time: (paper, cell) to percent or errors.
PINNED = {
    "hinton2015-mnist": {
        "teacher": 67, "student-hard": 146, "student-soft": 74, "without-3": 206, "without-3-threes": 133,
        "without-3-bias": 3.5, "without-3-corrected": 109, "without-3-corrected-threes": 14, "only-7-8": 47.3,
        "only-7-8-bias": -7.6, "only-7-8-corrected": 13.2, "speech-distilled": 60.8, "speech-distilled-wer": 10.7,
        "soft-3pc-soft": 57.0, "jft-specialists": 26.1,
    },
    "cifar100-crd": {
        "wrn_40_2:wrn_16_2:kd": 74.92, "wrn_40_2:wrn_40_1:kd": 73.54, "resnet56:resnet20:kd": 70.66,
        "resnet110:resnet20:kd": 70.67, "resnet110:resnet32:kd": 73.08, "resnet32x4:resnet8x4:kd": 73.33,
        "vgg13:vgg8:kd": 72.98, "vgg13:MobileNetV2:kd": 67.37, "ResNet50:MobileNetV2:kd": 67.35,
        "ResNet50:vgg8:kd": 73.81, "resnet32x4:ShuffleV1:kd": 74.07, "resnet32x4:ShuffleV2:kd": 74.45,
        "wrn_40_2:ShuffleV1:kd": 74.83,
    },
    "cifar100-dkd": {
        "resnet32x4:resnet8x4:dkd": 76.32, "wrn_40_2:wrn_16_2:dkd": 76.24, "resnet32x4:ShuffleV2:dkd": 77.07,
        "wrn_40_2:MobileNetV2:dkd": 69.28, "resnet32x4:wrn_40_2:dkd": 78.46,
    },
    "cifar100-ls": {
        "resnet32x4:resnet8x4:kd-ls": 76.62, "ResNet50:MobileNetV2:kd-ls": 69.02, "wrn_40_2:resnet8x4:kd-ls": 77.11,
    },
    "imagenet-resnet34-resnet18": {"resnet34:resnet18:student": 69.75, "resnet34:resnet18:dist": 72.07},
    "imagenet-resnet50-mobilenetv1": {"resnet50:mobilenetv1_100:kd": 70.50},
    "fashion-mnist-crd": {},
}  # fmt: skip


def test_every_file_has_pinned_numbers() -> None:
    assert set(PINNED) == set(PAPERS)


@pytest.mark.parametrize("name", PAPERS)
def test_a_paper_is_runnable_and_says_what_it_is(name: str) -> None:
    paper = load_paper(name)
    assert "arXiv:" in paper.citation and paper.note and paper.source and paper.departures
    assert {run.model for run in paper.runs} <= set(known_models())
    for run in paper.runs:
        METHODS.get(run.method).check(hyper=run.hyper)
    protocol = Protocol(paper)
    assert len({job.config.id for job in protocol.jobs}) == len(protocol.jobs)
    places = {job.config.id: k for k, job in enumerate(protocol.jobs)}
    for k, job in enumerate(protocol.jobs):
        assert job.config.recipe.precision != "auto" and job.config.phase == "confirm"
        assert job.teacher is None or places[job.teacher.id] < k  # a teacher comes before its students
        for knob, value in job.config.hyper.items():
            low, high = METHODS.get(job.config.method).bounds[knob]
            assert low <= value <= high
    numbers = {cell.id: cell.published for cell in paper.cells}
    assert {cell: numbers[cell] for cell in PINNED[name]} == PINNED[name]
    for cell in paper.cells:
        assert (cell.run is None) == bool(cell.reason)


@pytest.mark.parametrize("name", [name for name in PAPERS if name.startswith("cifar100")])
def test_the_cifar_tables_share_their_networks_and_their_recipe(name: str) -> None:
    paper, crd = load_paper(name), load_paper("cifar100-crd")
    assert paper.recipes == crd.recipes and {run.model for run in paper.runs} <= set(map(cifar_model, CIFAR_NETS))
    plain = {job.config.id for job in Protocol(crd).jobs if job.run.method in ("hard", "kd")}
    shared = [job for job in Protocol(paper).jobs if job.run.name == "kd-resnet56-resnet20"]
    assert {job.config.id for job in shared} <= plain  # the same run, whichever table asks for it


def test_the_loss_weights_of_each_pair() -> None:
    crd, dkd, ls = (load_paper(f"cifar100-{key}") for key in ("crd", "dkd", "ls"))
    assert crd.run("kd-vgg13-vgg8").hyper == {"temperature": 4, "soft_weight": 0.9, "hard_weight": 0.1}
    betas = {"resnet56-resnet20": 2, "resnet110-resnet32": 2, "vgg13-vgg8": 6, "wrn_40_2-wrn_40_1": 6}
    for pair, beta in {**betas, "resnet32x4-resnet8x4": 8, "vgg13-MobileNetV2": 6}.items():
        assert dkd.run(f"dkd-{pair}").hyper == {"temperature": 4, "alpha_t": 1, "beta": beta, "warmup": 20}
    for pair, (temperature, weight) in {"resnet110-resnet20": (4, 12), "ResNet50-MobileNetV2": (3, 1)}.items():
        held = ls.run(f"kd-ls-{pair}").hyper
        assert held == {"temperature": temperature, "soft_weight": weight, "hard_weight": 0.1}


@pytest.mark.parametrize("name", PAPERS)
def test_what_was_published_lies_in_the_method_s_space(name: str) -> None:
    """A sweep of the default space can find the authors' own settings."""
    for run in load_paper(name).runs:
        for knob, value in run.hyper.items():
            space = METHODS.get(run.method).space
            assert knob not in space or space[knob].low <= value <= space[knob].high, (run.name, knob, value)


@pytest.mark.parametrize("name", [name for name in PAPERS if (RECORDS / name / "runs.jsonl").is_file()])
def test_a_recorded_table_is_the_protocol_of_the_file(name: str) -> None:
    lines = (RECORDS / name / "runs.jsonl").read_text(encoding="utf-8").splitlines()
    recorded = {json.loads(line)["result"]["id"] for line in lines}
    planned = {job.config.id for job in Protocol(load_paper(name)).jobs}
    rows = list(csv.DictReader((RECORDS / name / "table.csv").open(encoding="utf-8")))
    lacking = [row["cell"] for row in rows if row["planned"] and int(row["runs"]) < int(row["planned"])]
    assert recorded <= planned and (recorded == planned) == (not lacking)  # a table that is not whole says where
