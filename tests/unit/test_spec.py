"""Options to a resolved sweep: precedence, ranges, names, differences. No model is built."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from kdbench.catalog.recipes import BUDGETS
from kdbench.cli.options import options_of
from kdbench.errors import BadInput
from kdbench.methods import METHODS
from kdbench.models import Given
from kdbench.sweeps.config import SweepConfig, parse_dimension
from kdbench.sweeps.overrides import named_configs, read_config, read_run_options
from kdbench.sweeps.plan import fixed_of, space_of
from kdbench.sweeps.series import Sweeps, read_sweeps
from kdbench.sweeps.spec import build_sweep
from kdbench.sweeps.teachers import teacher_config
from kdbench.sweeps.types import Sweep, spec_difference

PAIR = "resnet50:mobilenetv3"
finite = st.floats(min_value=-1e6, max_value=1e6, allow_nan=False)


def no_models() -> Collection[str]:
    raise AssertionError("the catalog's own names must not need timm")


def resolved(**options: Any) -> Sweep:
    return build_sweep(read_config(None, (), {"pair": PAIR, **options}), known_models=no_models)


def test_each_source_overrides_the_one_before(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(f"pair: {PAIR}\nbudget: standard\ntrials: 7\nseeds: 7\nrecipe:\n  lr: 0.7\nepochs: 7\n")
    config = read_config(str(file), ["budget.seeds=8", "recipe.epochs=8"], {"epochs": 9, "lr": None})
    sweep = build_sweep(config, known_models=no_models)
    preset = BUDGETS["standard"]
    assert (sweep.budget.name, sweep.budget.trials, sweep.budget.seeds) == ("standard", 7, 8)
    assert (preset.trials, preset.seeds) != (7, 8)
    assert (sweep.recipe.lr, sweep.recipe.epochs) == (0.7, 9)
    assert sweep.teacher_recipe.epochs != 9


def test_the_same_option_by_flag_yaml_or_dotted_key_is_the_same_sweep() -> None:
    assert resolved(epochs=3) == resolved(**{"recipe.epochs": 3}) == resolved(recipe={"epochs": 3})
    assert resolved(trials=3) == resolved(budget={"trials": 3}) == resolved(**{"budget.trials": 3})
    assert resolved(temperature="1,2") == resolved(temperature=[1, 2]) == resolved(space={"temperature": "1,2"})
    several = read_config(None, ["teacher-weights=[a.pt, b.pt]"], {"pair": PAIR})
    assert several == read_config(None, [], {"pair": PAIR, "teacher-weights": "a.pt,b.pt"})
    assert resolved(batch_size=32) == resolved(**{"batch-size": "32"})


def test_stem_reaches_both_networks_and_a_dotted_key_only_one() -> None:
    both, one = resolved(stem="small"), resolved(**{"stem": "small", "recipe.stem": "native"})
    assert (both.recipe.stem, both.teacher_recipe.stem) == ("small", "small")
    assert (one.recipe.stem, one.teacher_recipe.stem) == ("native", "small")
    later = read_config(None, ["recipe.stem=native"], {"pair": PAIR, "stem": "small"})
    assert build_sweep(later, known_models=no_models) == both, "a later source says it of both"


def test_the_words_of_a_config_ask_for_the_same(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        f"pair: {PAIR}\nmethod: [kd, dkd]\ntemperature: 1..9\nspace: {{beta: [1, 2]}}\nexact: true\nout: ~/x\n"
        "recipe: {weight-decay: 1e-4, milestones: [3, 5], clip-grad: null, nesterov: false, model-options: {a: 0.5}}\n"
    )
    config = read_config(str(file), ["stem=small"], {"epochs": 3, "limit": "60", "teacher_floor": 0.5})
    words, kept = config.words(), CliRunner()
    seen: list[SweepConfig] = []
    app = typer.Typer()

    @app.command()
    @options_of(SweepConfig)
    def ask(
        ctx: typer.Context, *, set_: Annotated[list[str] | None, typer.Option("--set")] = None, **flags: Any
    ) -> None:
        seen.append(read_config(None, set_ or [], flags))

    assert kept.invoke(app, words).exit_code == 0
    assert seen == [config]


@pytest.mark.parametrize("option", ["trials", "seeds", "epochs", "teacher-epochs", "lr", "batch-size", "limit"])
def test_every_number_changes_the_sweep(option: str) -> None:
    assert resolved(**{option: 21}) != resolved(**{option: 22})


def test_a_single_value_is_held_and_a_list_or_range_is_searched() -> None:
    sweep = resolved(temperature=4, alpha="0.2..0.8")
    assert sweep.fixed == {"temperature": 4.0}
    assert set(sweep.space) == {"alpha"}
    assert (sweep.space["alpha"].low, sweep.space["alpha"].high, sweep.space["alpha"].log) == (0.2, 0.8, False)
    assert resolved(temperature="2..8").space["temperature"].log, "a method's scale is kept"
    assert resolved(temperature="1,2,4").space["temperature"].choices == (1.0, 2.0, 4.0)


def test_no_method_s_search_depends_on_which_others_are_compared() -> None:
    names = [name for name in METHODS.names() if name != "hard"]
    for together in (names, *([name, other] for name in ("kd", "kd-ls", "dtkd", "ofa") for other in names)):
        sweep = resolved(method=",".join(together))
        for name in sweep.methods:
            assert space_of(sweep, name) == dict(METHODS.get(name).space), together
    asked = resolved(method="kd,dkd,dist", temperature="2..3")
    for name in asked.methods:
        assert (space_of(asked, name)["temperature"].low, space_of(asked, name)["temperature"].high) == (2, 3)


def test_what_is_tuned_is_searched_around_the_recipe_for_hard_labels_too() -> None:
    sweep, plain = resolved(tune="weight-decay,label-smoothing,lr", lr=0.2), resolved(lr=0.2)
    space = space_of(sweep, "hard")
    assert {name: str(one) for name, one in space.items()} == {
        "lr": "0.05..0.8", "weight_decay": "5e-05..0.005", "label_smoothing": "0..0.2",
    }  # fmt: skip
    assert [space[name].log for name in ("lr", "weight_decay", "label_smoothing")] == [True, True, False]
    assert space_of(sweep, "kd") == {**space_of(plain, "kd"), **space}
    assert resolved(tune="weight-decay", **{"recipe.weight-decay": 0}).space["weight_decay"].high == 5e-3
    assert resolved(tune="lr", **{"space.lr": "0.1,0.2"}).space["lr"].choices == (0.1, 0.2)
    more = {"tuned", "controls", "compute_epochs"}
    assert not more & plain.model_dump().keys(), "the ids of sweeps without them stay"


@given(st.lists(finite, min_size=1))
def test_a_list_keeps_its_values_in_order(values: list[float]) -> None:
    parsed = parse_dimension(",".join(map(repr, values)))
    assert parsed.choices == tuple(dict.fromkeys(values)) == parse_dimension(values).choices


@given(finite, finite)
def test_a_range_is_read_or_refused_by_its_order(low: float, high: float) -> None:
    text = f"{low!r}..{high!r}"
    if low > high:
        with pytest.raises(BadInput, match="reversed"):
            parse_dimension(text)
    elif low < high:
        assert (parse_dimension(text).low, parse_dimension(text).high) == (low, high)
    else:
        assert parse_dimension(text).choices == (low,)


@given(st.text(max_size=12))
def test_any_text_is_a_dimension_or_bad_input(text: str) -> None:
    try:
        dimension = parse_dimension(text)
    except BadInput as error:
        assert "value" in str(error)
    else:
        assert dimension.choices or dimension.low is not None


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"method": "dk"}, "did you mean 'dkd'"),
        ({"method": " , "}, "at least one"),
        ({"space": {"temperature": {"a": 1}}}, "temperature"),
        ({"recipe.epocs": 1}, "did you mean 'epochs'"),
        ({"teacher-floor": 90}, "teacher-floor"),
        ({"val-fraction": 1}, "val-fraction"),
        ({"teacher-recipe.teacher-top-k": 5}, "students have recipe.teacher-top-k"),
        ({"dataset": 7}, "dataset: should be a valid string"),
        ({"max-seeds": 9}, "bounds --until decided"),
        ({"until": "decided", "seeds": 9, "max-seeds": 9}, "leaves none to add"),
        ({"until": "decided", "seeds": 1}, "needs 2 at least"),
        ({"until": "decided", "max-seeds": 0}, "0 leaves none to add"),
        ({"tune": "lr,momentum"}, "tune.1: should be 'lr'"),
        ({"tune": "lr", "space.lr": 0.1}, "one value is nothing to tune; set it with --set recipe.lr=0.1"),
        ({"tune": "lr", "space.lr": "0..1"}, "space.lr: should be greater than 0"),
        ({"tune": "weight-decay", "space.weight-decay": "0..1"}, "logarithmic"),
        ({"space.lr": "0.1..1"}, "unknown hyper-parameter of kd 'lr'"),
        ({"tune": "label-smoothing", "controls": "smoothing"}, "the baseline itself tunes label smoothing"),
        ({"recipe.label-smoothing": 0.2, "controls": "smoothing"}, "has label smoothing in its recipe"),
        ({"controls": "itself"}, "controls.0: should be 'smoothing'"),
    ],
)
def test_what_cannot_be_is_refused_by_name(options: dict[str, Any], says: str) -> None:
    with pytest.raises(BadInput, match=says):
        resolved(**options)


def test_default_names_come_from_data_pair_and_method() -> None:
    assert resolved(dataset="fashion-mnist").name == "fashion-mnist-resnet50-mobilenetv3-kd"
    students = "resnet50:resnet18,mobilenetv3_small_050"
    own = build_sweep(
        SweepConfig(pair=students, dataset="folder:/data/my images/", method=("kd", "dkd")),
        known_models=no_models,
        resolve_dataset=lambda name, **_: (build_spec(name), "abc"),
    )
    assert own.name == "my-images-resnet50-resnet18+mobilenetv3_small_050-kd+dkd"
    assert own.data.digest == "abc"


def build_spec(name: str) -> Any:
    from kdbench.catalog.datasets import DATASETS

    return DATASETS.get("cifar10").model_copy(update={"name": name})


def test_fewer_epochs_keep_the_shape_of_the_schedule() -> None:
    full = resolved(dataset="cifar100", budget="paper")
    short = resolved(dataset="cifar100", budget="paper", epochs=full.recipe.epochs // 10)
    assert short.recipe.milestones == tuple(round(m / 10) for m in full.recipe.milestones)
    own = resolved(dataset="cifar100", budget="paper", epochs=24, recipe={"milestones": [5]})
    assert own.recipe.milestones == (5,)
    assert resolved(epochs=1).recipe.warmup_epochs < 0.5, "a short run is not all warm-up"


def test_a_published_recipe_is_a_start_that_flags_and_settings_change(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(f"pair: {PAIR}\nbudget: paper\nrecipe: {{preset: crd, lr: 0.1}}\nteacher-recipe: rsb-a3\n")
    asked = read_config(str(file), ["recipe.weight-decay=0"], {"epochs": 24})
    sweep = build_sweep(asked, known_models=no_models)
    assert (sweep.recipe.lr, sweep.recipe.weight_decay, sweep.recipe.milestones) == (0.1, 0, (15, 18, 21))
    assert (sweep.recipe.nesterov, sweep.teacher_recipe.optimizer, sweep.teacher_recipe.epochs) == (False, "lamb", 100)
    other = build_sweep(read_config(str(file), (), {"recipe": "rsb-a2"}), known_models=no_models)
    assert (other.recipe.lr, other.recipe.optimizer, other.teacher_recipe) == (0.1, "lamb", sweep.teacher_recipe)
    funmatch, smoke = resolved(recipe={"preset": "funmatch"}), resolved(recipe={"preset": "funmatch"}, budget="smoke")
    assert fixed_of(funmatch, "kd") == {"temperature": 1.0, "alpha": 1.0} and not space_of(funmatch, "kd")
    beside = resolved(recipe={"preset": "funmatch"}, method="kd,wsld")  # whose alpha is another one
    assert not space_of(beside, "kd") and set(space_of(beside, "wsld")) == {"temperature", "alpha"}
    assert (funmatch.recipe.epochs, smoke.recipe.epochs, smoke.recipe.mixup) == (1200, 1, 1.0)
    assert resolved(recipe={"preset": "funmatch"}, temperature="2").fixed["temperature"] == 2
    with pytest.raises(BadInput, match="unknown recipe 'rsb': did you mean 'rsb-a3'"):
        resolved(recipe={"preset": "rsb"})


def test_differences_name_the_field_and_both_values() -> None:
    old, new = resolved(trials=4), resolved(trials=8, temperature="1,2", alpha=0.5)
    found = spec_difference(old, new)
    assert "budget.trials: stored 4, asked 8" in found
    assert "fixed.alpha: stored nothing, asked 0.5" in found
    assert any(line.startswith("space.temperature.choices") for line in found)
    assert spec_difference(old, resolved(trials=4)) == []


def test_teacher_weights_enter_by_their_digest() -> None:
    sweep = build_sweep(
        SweepConfig(pair=PAIR, teacher_weights="x.safetensors"),
        known_models=no_models,
        describe=lambda source, name: Given(f"file:{source}:{name}", {}),
    )
    assert sweep.teacher_weights == "file:x.safetensors:resnet50"


HALF: dict[str, Any] = {"mean": (0.5,) * 3, "std": (0.5,) * 3}


def test_weights_bring_what_they_must_see_and_students_their_size() -> None:
    """The teacher sees its students' views as its weights want them; what is asked for by name goes before."""
    known = {"network_size": 224, "network_interpolation": "bicubic", "stem": "native"} | HALF

    def made(**more: Any) -> Sweep:
        asked = {"pair": "resnet50:resnet18,resnet34", "dataset": "cifar10", "budget": "standard", **more}
        describe = lambda source, name: Given(f"file:{name}", known)  # noqa: E731
        return build_sweep(read_config(None, (), asked), known_models=no_models, describe=describe)

    own = made().teacher_recipe
    assert (own.network_size, own.mean, own.stem, made().recipe.stem) == (None, None, "small", "small")
    sweep = made(**{"teacher-weights": "x", "stem": "small", "teacher-recipe": {"network-interpolation": "bilinear"}})
    held = {name: getattr(sweep.teacher_recipe, name) for name in known}
    assert held == known | {"network_interpolation": "bilinear"}
    assert sweep.recipe == made().recipe and sweep.teacher_recipe.input_size == sweep.recipe.input_size == 32
    assert teacher_config(sweep).teacher_id == "file:resnet50" and teacher_config(sweep).start is None

    probe = made(**{"teacher-weights": "x", "teacher-tune": "head"})
    assert teacher_config(probe).model_dump(include={"teacher_id", "start", "tune"}) == {
        "teacher_id": None, "start": "file:resnet50", "tune": "head",
    }  # fmt: skip
    assert probe.teacher_recipe.lr == own.lr
    assert made(**{"teacher-weights": "x", "teacher-tune": "full"}).teacher_recipe.lr == pytest.approx(own.lr / 10)

    started = made(**{"student-weights": "pretrained"})
    assert started.student_weights == {"resnet18": "file:resnet18", "resnet34": "file:resnet34"}
    seen = started.recipe_of("resnet18")
    assert (seen.network_size, seen.mean, seen.lr) == (None, (0.5,) * 3, pytest.approx(made().recipe.lr / 10))
    for wrong, says in (
        ({"student-weights": "x.pt"}, "there are 2 students"),
        ({"student-weights": "x.pt,y.pt"}, "'x.pt,y.pt': a student starts from the weights of one network"),
        ({"teacher-tune": "head"}, "name them by --teacher-weights"),
        ({"recipe": {"freeze": 1}}, "freeze: what starts at random"),
        ({"teacher-weights": "x", "teacher-recipe": {"freeze": 1}}, "freeze: what starts at random"),
    ):
        with pytest.raises(BadInput, match=says):
            made(**wrong)
    tuned = made(**{"teacher-weights": "x", "teacher-tune": "full", "teacher-seeds": 2})
    first, second = (teacher_config(tuned, number) for number in (0, 1))
    assert first.start == second.start == "file:resnet50" and first.id != second.id


def test_a_teacher_of_another_size_sees_the_same_views() -> None:
    sweep = resolved(dataset="cifar10", **{"teacher-recipe": {"input-size": 64}})
    assert (sweep.teacher_recipe.input_size, sweep.teacher_recipe.network_size) == (sweep.recipe.input_size, 64)


def test_run_options_are_no_part_of_the_sweep() -> None:
    options = {"workers": "2", "out": "~/x", "wandb": "disabled", "wandb-project": "p"}
    assert resolved(**options) == resolved()
    config, run = read_config(None, (), {"pair": PAIR, **options}), read_run_options(options)
    for found in (config, run):
        told = (found.workers, found.out, found.tracking.mode, found.tracking.project)
        assert told == (2, Path.home() / "x", "disabled", "p")
    for bad in ({"workers": 0}, {"wandb": "maybe"}, {"storage": "optuna.db"}, {"worker": 2}):
        with pytest.raises(BadInput):
            read_run_options(bad)


@pytest.mark.parametrize("name", sorted(named_configs()))
def test_every_named_sweep_resolves(name: str) -> None:
    asked = read_sweeps(name)
    for one in asked.each if isinstance(asked, Sweeps) else (asked,):
        sweep = build_sweep(one, known_models=no_models)
        assert (sweep.name.startswith(name) and one.out.name == name) or sweep.name == name


def test_an_asked_alpha_takes_the_place_of_a_recipe_s_free_weights() -> None:
    def held(**more: Any) -> dict[str, float]:
        sweep = build_sweep(
            read_config(None, (), {"pair": PAIR, "recipe.preset": "usi", **more}), known_models=no_models
        )
        return fixed_of(sweep, "kd")

    assert held()["soft_weight"] == 5.0 and "soft_weight" not in held(alpha=0.3) and held(alpha=0.3)["alpha"] == 0.3
