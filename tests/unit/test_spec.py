"""Options to a resolved sweep: precedence, ranges, names, differences. No model is built."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdbench.catalog.recipes import BUDGETS
from kdbench.errors import BadInput
from kdbench.methods import METHODS
from kdbench.sweeps.options import expand, merge, named_configs, run_options
from kdbench.sweeps.plan import space_of
from kdbench.sweeps.spec import build_sweep, parse_dimension, spec_difference
from kdbench.sweeps.types import Sweep

PAIR = "resnet50:mobilenetv3"
finite = st.floats(min_value=-1e6, max_value=1e6, allow_nan=False)


def no_models() -> Collection[str]:
    raise AssertionError("the catalog's own names must not need timm")


def resolved(**options: Any) -> Sweep:
    return build_sweep({"pair": PAIR, **options}, known_models=no_models)


def test_each_source_overrides_the_one_before(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(f"pair: {PAIR}\nbudget: standard\ntrials: 7\nseeds: 7\nrecipe:\n  lr: 0.7\nepochs: 7\n")
    options = merge(str(file), ["budget.seeds=8", "recipe.epochs=8"], {"epochs": 9, "lr": None})
    sweep = build_sweep(options, known_models=no_models)
    preset = BUDGETS["standard"]
    assert (sweep.budget.name, sweep.budget.trials, sweep.budget.seeds) == ("standard", 7, 8)
    assert (preset.trials, preset.seeds) != (7, 8)
    assert (sweep.recipe.lr, sweep.recipe.epochs) == (0.7, 9)
    assert sweep.teacher_recipe.epochs != 9


def test_the_same_option_by_flag_yaml_or_dotted_key_is_the_same_sweep() -> None:
    assert resolved(epochs=3) == resolved(**{"recipe.epochs": 3}) == resolved(recipe={"epochs": 3})
    assert resolved(trials=3) == resolved(budget={"trials": 3}) == resolved(**{"budget.trials": 3})
    assert resolved(temperature="1,2") == resolved(temperature=[1, 2]) == resolved(space={"temperature": "1,2"})
    assert merge(None, ["teacher-weights=[a.pt, b.pt]"], {}) == merge(None, [], {"teacher-weights": "a.pt,b.pt"})
    assert resolved(batch_size=32) == resolved(**{"batch-size": "32"})


def test_stem_reaches_both_networks_and_a_dotted_key_only_one() -> None:
    both, one = resolved(stem="small"), resolved(**{"stem": "small", "recipe.stem": "native"})
    assert (both.recipe.stem, both.teacher_recipe.stem) == ("small", "small")
    assert (one.recipe.stem, one.teacher_recipe.stem) == ("native", "small")


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
    sweep = resolved(method="kd,dkd,dist")
    for name in sweep.methods:
        assert space_of(sweep, name) == space_of(resolved(method=name), name) == dict(METHODS.get(name).space)
    asked = resolved(method="kd,dkd,dist", temperature="2..3")
    for name in asked.methods:
        assert (space_of(asked, name)["temperature"].low, space_of(asked, name)["temperature"].high) == (2, 3)


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
        ({"temperature": "0"}, "temperature must be above 0, not 0"),
        ({"temperature": "-1..4"}, "temperature"),
        ({"alpha": "0.5,1.5"}, r"\[0, 1\], not at 1.5"),
        ({"alpha": "0.9..0.1"}, "reversed, write 0.1..0.9"),
        ({"alpha": ""}, "no value given"),
        ({"alpha": "nan"}, "not a finite number"),
        ({"space.beta": 1}, "unknown hyper-parameter of kd 'beta'"),
        ({"method": "dk"}, "did you mean 'dkd'"),
        ({"method": "hard"}, "baseline"),
        ({"method": " , "}, "at least one"),
        ({"budget": "quik"}, "did you mean 'quick'"),
        ({"sampler": "tpee"}, "did you mean 'tpe'"),
        ({"sampler": "grid"}, "needs lists"),
        ({"pruner": "hyperband"}, "pruner"),
        ({"trials": 0}, "trials"),
        ({"seeds": "many"}, "seeds"),
        ({"limit": 3}, "limit"),
        ({"epochs": -1}, "recipe.epochs"),
        ({"recipe.epocs": 1}, "did you mean 'epochs'"),
        ({"epocs": 1}, "did you mean 'epochs'"),
        ({"stem": "big"}, "stem"),
        ({"teacher-floor": 90}, "teacher-floor"),
        ({"val-fraction": 1}, "val-fraction"),
        ({"teacher-recipe.teacher-top-k": 5}, "students have recipe.teacher-top-k"),
        ({"name": "../elsewhere"}, "name '../elsewhere'"),
        ({"dataset": "digitz"}, "did you mean 'digits'"),
        ({"dataset": 7}, "dataset must be a name"),
        ({"pair": None}, "no pair given"),
    ],
)
def test_what_cannot_be_is_refused_by_name(options: dict[str, Any], says: str) -> None:
    with pytest.raises(BadInput, match=says):
        resolved(**options)


def test_default_names_come_from_data_pair_and_method() -> None:
    assert resolved(dataset="fashion-mnist").name == "fashion-mnist-resnet50-mobilenetv3-kd"
    own = build_sweep(
        {"pair": "resnet50:resnet18,mobilenetv3_small_050", "dataset": "folder:/data/my images/", "method": "kd,dkd"},
        known_models=no_models,
        resolve_dataset=lambda name: (build_spec(name), "abc"),
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


def test_differences_name_the_field_and_both_values() -> None:
    old, new = resolved(trials=4), resolved(trials=8, temperature="1,2", alpha=0.5)
    found = spec_difference(old, new)
    assert "budget.trials: stored 4, asked 8" in found
    assert "fixed.alpha: stored nothing, asked 0.5" in found
    assert any(line.startswith("space.temperature.choices") for line in found)
    assert spec_difference(old, resolved(trials=4)) == []


def test_teacher_weights_enter_by_their_digest() -> None:
    sweep = build_sweep(
        {"pair": PAIR, "teacher-weights": "x.safetensors"},
        known_models=no_models,
        weights_digest=lambda source, name: f"file:{source}:{name}",
    )
    assert sweep.teacher_weights == "file:x.safetensors:resnet50"


def test_run_options_are_no_part_of_the_sweep() -> None:
    options = expand({"pair": PAIR, "workers": 2, "out": "~/x", "wandb": "disabled", "wandb-project": "p"}, "test")
    assert build_sweep(options, known_models=no_models) == resolved()
    run = run_options(options)
    assert (run.workers, run.out, run.wandb.mode, run.wandb.project) == (2, Path.home() / "x", "disabled", "p")
    for bad in ({"workers": 0}, {"wandb": "maybe"}, {"storage": "optuna.db"}):
        with pytest.raises(BadInput):
            run_options(bad)


@pytest.mark.parametrize("name", sorted(named_configs()))
def test_every_named_sweep_resolves(name: str) -> None:
    sweep = build_sweep(merge(name, [], {}), known_models=no_models)
    assert sweep.name == name
    run_options(merge(name, [], {}))
