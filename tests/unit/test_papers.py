"""A paper as data: expansion, protocol, bias corrections, verdicts, claims, and the fields it needed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kdbench.config import DataConfig, Recipe, RunConfig
from kdbench.data import load, resolve_dataset
from kdbench.data.task import in_colour
from kdbench.errors import BadInput
from kdbench.models import build
from kdbench.papers.claims import answer
from kdbench.papers.figures import draw_claims
from kdbench.papers.load import load_paper
from kdbench.papers.measures import Outputs, Value, choose_bias, load_outputs, wrong
from kdbench.papers.paper_plan import PaperPlan
from kdbench.papers.plan import Protocol, Request
from kdbench.papers.schema import Bias, Cell
from kdbench.papers.table import PaperTable, notes, paper_table, verdict_of
from kdbench.run.weights import save_arrays
from kdbench.train.optim import make_optimizer, make_schedule, max_norm_constraint

CPU = torch.device("cpu")
HINTON = Protocol(load_paper("hinton2015-mnist"))


class NoTrials:
    def get(self, config: RunConfig) -> None:
        return None


def table_of(**values: list[float]) -> PaperTable:
    """Hinton's table with these values by seed for some cells."""
    empty = paper_table(HINTON, NoTrials())  # type: ignore[arg-type]
    held = {cell: [Value(k, "", number) for k, number in enumerate(numbers)] for cell, numbers in values.items()}
    return PaperTable(HINTON, empty.rows, {**empty.values, **held})


def test_fields_that_are_not_used_are_not_written() -> None:
    moved = DataConfig(name="mnist", train_classes=(7, 8)).model_dump()
    assert moved["train_classes"] == (7, 8) and "channels" not in moved and "validate_on" not in moved


def test_the_transfer_set_keeps_labels_and_the_other_splits() -> None:
    spec, _ = resolve_dataset("digits")
    whole = load(spec, DataConfig(name="digits"), Recipe(), CPU)
    some = load(spec, DataConfig(name="digits", train_classes=(7, 8)), Recipe(), CPU)
    assert set(some.train.labels.tolist()) == {7, 8} and some.classes == 10
    assert len(some.train) == sum(int((whole.train.labels == label).sum()) for label in (7, 8))
    assert some.val.digest == whole.val.digest and some.test().digest == whole.test().digest
    assert some.train.digest != whole.train.digest  # the teacher's logit cache is another one
    with pytest.raises(BadInput, match="class 12"):
        load(spec, DataConfig(name="digits", train_classes=(12,)), Recipe(), CPU)


def test_validation_on_test_holds_nothing_out() -> None:
    spec, _ = resolve_dataset("digits")
    whole = load(spec, DataConfig(name="digits"), Recipe(), CPU)
    data = load(spec, DataConfig(name="digits", validate_on="test"), Recipe(), CPU)
    assert data.val.digest == data.test().digest == whole.test().digest
    assert len(data.train) == len(whole.train) + len(whole.val)


def test_grey_images_in_three_equal_channels() -> None:
    spec, _ = resolve_dataset("digits")
    grey = load(spec, DataConfig(name="digits"), Recipe(pad=0, flip=False), CPU)
    colour = load(spec, DataConfig(name="digits", channels=3), Recipe(pad=0, flip=False), CPU)
    one, three = next(iter(grey.val.plain(8))).x, next(iter(colour.val.plain(8))).x
    assert colour.channels == 3 and torch.equal(three, one.expand(-1, 3, -1, -1))
    with pytest.raises(BadInput, match="only grey"):
        in_colour(spec.model_copy(update={"shape": (2, 8, 8)}), DataConfig(name="digits", channels=3))


def test_max_norm_shrinks_rows_above_the_limit_and_no_other() -> None:
    model = build("hinton_mlp_30", classes=10, channels=1, input_size=28, seed=0)
    weight = model.hidden1.weight
    with torch.no_grad():
        weight[0] *= 100
    before = weight.detach().clone()
    max_norm_constraint(model, 2.0)()
    assert torch.linalg.vector_norm(weight, dim=1).max() <= 2.0 + 1e-5
    torch.testing.assert_close(weight[0], before[0] * 2.0 / before[0].norm())
    kept = before.norm(dim=1) <= 2.0
    assert kept[1:].all() and torch.equal(weight[kept], before[kept])
    with pytest.raises(BadInput, match="max-norm"):
        max_norm_constraint(torch.nn.Linear(2, 2), 1.0)


def test_model_options_reach_the_constructor() -> None:
    shape = {"classes": 10, "channels": 1, "input_size": 28}
    assert build("hinton_mlp_1200", **shape, options={"drop_rate": 0.3}).drop1.p == 0.3  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="hinton_mlp_30"):
        build("hinton_mlp_30", **shape, options={"no_such": 1.0})  # type: ignore[arg-type]


@given(st.integers(0, 2**32 - 1), st.sampled_from([(3,), (7, 8), (0, 1, 2)]))
def test_the_chosen_bias_is_the_best_on_the_grid(seed: int, classes: tuple[int, ...]) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 10, 60)
    logits = (rng.normal(size=(60, 10)) + 2 * np.eye(10)[labels] - 3 * np.isin(np.arange(10), classes)).astype("f4")
    outputs = Outputs(logits, labels)
    grid = np.arange(-50, 51) * 0.1
    errors = [int(wrong(outputs, bias, classes).sum()) for bias in grid]
    chosen = choose_bias(outputs, Bias(classes=classes, reach=5.0))
    assert int(wrong(outputs, chosen, classes).sum()) == min(errors)


def test_kept_logits_come_back(tmp_path: Path) -> None:
    outputs = Outputs(np.eye(3, dtype=np.float32), np.array([0, 1, 2]))
    save_arrays(tmp_path / "logits.npz", {"test_logits": outputs.logits, "test_labels": outputs.labels})
    back = load_outputs(tmp_path / "logits.npz", "test")
    assert np.array_equal(back.logits, outputs.logits) and np.array_equal(back.labels, outputs.labels)


@pytest.mark.parametrize(
    ("published", "reported", "ours", "verdict"),
    [
        (72, "one run", [75.0, 76.0, 77.0], "consistent"),  # outside the interval of the mean, which ends at 73.5
        (72, "last epoch, mean of 5 runs", [75.0, 76.0, 77.0], "higher"),
        (72, "chosen on test", [75.0, 76.0, 77.0], "lower"),  # ours chosen there: 5 fewer
        (67, "", [75.0, 76.0, 77.0], "higher"),
        (146, "", [138.0, 140.0, 142.0], "consistent"),
        (152, "one run", [138.0, 140.0, 142.0], "cannot tell"),  # 95% end at 149.9, 98% at 156.1
        (152, "mean of 2 runs", [138.0, 140.0, 142.0], "lower"),
        (74, "", [74.0], "one run"),
        (74, "", [74.0] * 3, "no spread"),
        (None, "", [70.0, 78.0], "ours only"),
        (74, "", [], "not run"),
    ],
)
def test_verdicts(published: float | None, reported: str, ours: list[float], verdict: str) -> None:
    cell = Cell(id="x", what="x", published=published, reported=reported)
    assert verdict_of(cell, [Value(k, str(k), one, on_test=one - 15) for k, one in enumerate(ours)]) == verdict


def test_rows_bring_the_teachers_they_need_and_rehearsals_scale_the_schedule() -> None:
    paper = load_paper("cifar100-crd")
    protocol = Protocol(paper, Request(rows=("resnet56:resnet20:kd",), seeds=2, epochs=24))
    assert [(job.run.name, job.config.seed) for job in protocol.jobs] == [
        ("hard-resnet56", 0),
        ("kd-resnet56-resnet20", 0),
        ("kd-resnet56-resnet20", 1),
    ]
    student = protocol.jobs[1].config
    assert student.teacher_id == protocol.jobs[0].config.id and student.recipe.milestones == (15, 18, 21)
    assert protocol.name == "cifar100-crd-e24"
    with pytest.raises(BadInput, match="matches no row"):
        _ = Protocol(paper, Request(rows=("nothing*",))).cells


def test_each_seed_of_hinton_has_its_own_teacher() -> None:
    soft = [job for job in HINTON.jobs if job.run.name == "soft-800-T20"]
    assert len(soft) == 5 and [job.teacher.seed for job in soft if job.teacher] == [job.config.seed for job in soft]
    assert len({job.config.teacher_id for job in soft}) == 5


def test_a_replication_has_seeds_and_a_folder_of_its_own_and_says_so() -> None:
    again = Protocol(load_paper("hinton2015-mnist"), Request(rows=("without-3",), first_seed=5))
    assert again.name == "hinton2015-mnist-s5" and PaperPlan(again).spec()["first_seed"] == 5
    assert notes(paper_table(again, NoTrials()))[0][0] == "A replication"  # type: ignore[arg-type]
    assert Protocol(again.paper, Request(first_seed=0)).name == "hinton2015-mnist"  # as the file says
    assert [job.config.seed for job in again.jobs] == 2 * [5, 6, 7, 8, 9]  # teachers, then students
    assert not {job.config.id for job in again.jobs} & {job.config.id for job in HINTON.jobs}


def test_the_learning_rate_follows_the_published_schedule() -> None:
    """CRD: 0.05, divided by 10 after epochs 150, 180 and 210 of 240; 0.01 for MobileNetV2 and ShuffleNets."""
    paper = load_paper("cifar100-crd")
    for net, base in (("resnet20", 0.05), ("MobileNetV2", 0.01), ("ShuffleV2", 0.01)):
        recipe = paper.recipes[paper.run(f"hard-{net}").recipe]
        optimizer = make_optimizer(torch.nn.Linear(2, 2), recipe)
        schedule, steps = make_schedule(optimizer, recipe, 3), 3
        for update in range(240 * steps):
            schedule.step_update(update)
            epoch = update // steps + 1
            expected = base * 0.1 ** sum(epoch > mark for mark in (150, 180, 210))
            assert optimizer.param_groups[0]["lr"] == pytest.approx(expected), (net, epoch)
        assert not optimizer.defaults["nesterov"] and optimizer.defaults["momentum"] == 0.9


def test_claims_need_their_runs_and_weigh_them() -> None:
    gap, similar, best, unseen = HINTON.paper.claims
    assert answer(table_of(), similar).verdict == "open"
    noise = np.array([0.0, 3.0, -2.0, 1.0, -4.0])
    flat = {f"T{t}-{w}": list(100 + np.roll(noise, k)) for w in (300, 800) for k, t in enumerate(("8", "12", "20"))}
    assert answer(table_of(**flat), similar).verdict == "supported"
    worse = {**flat, "T20-300": list(150 + np.roll(noise, 3))}
    assert answer(table_of(**worse), similar).verdict == "partly supported"
    valley = {"1": 400, "2": 380, "2.5": 350, "4": 352, "8": 380, "12": 390, "20": 400}
    held = {f"T{t}-30": list(mean + np.roll(noise, k)) for k, (t, mean) in enumerate(valley.items())}
    assert answer(table_of(**held), best).verdict == "supported"
    assert answer(table_of(**{**held, "T20-30": list(340 + noise)}), best).verdict == "not supported"
    main = {"teacher": list(75 + noise), "student-hard": list(145 - noise), "student-soft": list(95.0 + noise)}
    found = answer(table_of(**main), gap)
    assert found.verdict == "supported" and "72% of the gap" in found.text
    assert answer(table_of(**{**main, "student-soft": list(125.0 + noise)}), gap).verdict == "partly supported"
    assert answer(table_of(**{**main, "student-soft": list(146.0 + noise)}), gap).verdict == "not supported"
    shares = {"without-3-threes": [200.0, 300.0], "without-3-corrected-threes": [20.0, 30.0]}
    found = answer(table_of(**shares), unseen)
    assert found.verdict == "supported" and "75.2%" in found.text


def test_one_seed_has_a_figure_without_intervals(tmp_path: Path) -> None:
    one = {f"T{t}-300": [100.0 + t] for t in (8, 12, 20)} | {"without-3-threes": [200.0]}
    assert (tmp_path / "temperature_width.png") in draw_claims(table_of(**one), tmp_path).values()


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("run: teacher, measure", "run: tutor, measure", "unknown run 'tutor'"),
        ("hinton_mlp_800, recipe: student", "hinton_mlp_800, recipe: pupil", "unknown recipe 'pupil'"),
        ("temperature: 20, alpha", "temprature: 20, alpha", "unknown hyper-parameter 'temprature'"),
        ("measure: errors, published: 67", "measure: mistakes, published: 67", "measure"),
        ("precision: bf16", "precision: auto", "fp32 or bf16"),
    ],
)
def test_a_wrong_file_is_refused_with_its_place(tmp_path: Path, old: str, new: str, says: str) -> None:
    from kdbench.papers.load import paper_files

    text = paper_files()["hinton2015-mnist"].read_text(encoding="utf-8")
    assert old in text
    (tmp_path / "mine.yaml").write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(BadInput, match=says):
        load_paper(str(tmp_path / "mine.yaml"))
