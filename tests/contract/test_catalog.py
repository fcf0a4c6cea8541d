"""Every entry of the catalog against the installed timm, the schema and the losses."""

from __future__ import annotations

import importlib
import itertools

import pytest
import torch

from kdbench.catalog import BUDGETS, DATASETS, FAMILIES, PAIRS, TEACHERS, parse_pair, recipe_for
from kdbench.catalog.types import Dimension, Family
from kdbench.methods import METHODS, Method
from kdbench.models import build, count_params, known_models
from kdbench.models.build import planned

STUDENTS = sorted({m for family in FAMILIES.entries.values() for m in family.models})
ATTENTION = ("vit", "deit", "levit", "test_vit")
"""Networks whose weights depend on the number of tokens."""


def final_positions(model: torch.nn.Module, x: torch.Tensor) -> int:
    """Positions (pixels or tokens) of the last feature map."""
    features = model.forward_features(x)  # type: ignore[operator]
    return features.shape[1] if features.ndim == 3 else features[0, 0].numel()


def test_there_are_enough_families_and_timm_knows_all_names() -> None:
    assert len(FAMILIES.names()) >= 12
    assert {*STUDENTS, *TEACHERS} <= set(known_models())


@pytest.mark.parametrize("family", FAMILIES.entries.values(), ids=lambda family: family.name)
def test_a_family_ascends_in_parameters(family) -> None:
    with torch.device("meta"):
        sizes = [count_params(planned(m, classes=10, channels=1, input_size=32)) for m in family.models]
    assert len(sizes) >= 2 and all(a < b for a, b in itertools.pairwise(sizes)), sizes
    assert family.note


def both_stems(name: str) -> dict[str, torch.nn.Module]:
    stems = ("native", "small")
    made = {stem: build(name, classes=10, channels=1, input_size=32, stem=stem, seed=0) for stem in stems}
    if not name.startswith(ATTENTION):  # the stem changes strides, never weights
        assert list(made["native"].state_dict()) == list(made["small"].state_dict())
    return made


def check_positions(made: dict[str, torch.nn.Module], x: torch.Tensor) -> None:
    """A small stem leaves more positions, except where a network has one stem only."""
    with torch.no_grad():
        native, small = (final_positions(model.eval(), x) for model in made.values())
    assert native == small if getattr(made["native"], "native_only", False) else native < small


@pytest.mark.slow
@pytest.mark.parametrize("name", STUDENTS)
def test_a_student_has_both_stems(name: str) -> None:
    with torch.device("meta"):
        check_positions(both_stems(name), torch.zeros(2, 1, 32, 32))


@pytest.mark.parametrize("name", sorted({family.models[0] for family in FAMILIES.entries.values()}))
def test_the_smallest_student_of_a_family_trains_with_both_stems(name: str) -> None:
    torch.manual_seed(0)
    x, made = torch.randn(2, 1, 32, 32), both_stems(name)
    if not name.startswith(ATTENTION):
        native, small = (model.state_dict() for model in made.values())
        assert all(torch.equal(native[key], small[key]) for key in native)
    for model in made.values():
        out = model(x)
        assert model.training and out.shape == (2, 10) and out.isfinite().all()
        out.square().sum().backward()
        assert not [n for n, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    check_positions(made, x)


@pytest.mark.parametrize("name", TEACHERS)
def test_a_teacher_can_be_built(name: str) -> None:
    assert count_params(planned(name, classes=100, channels=3, input_size=32)) > 0


def test_pairs_say_what_their_names_parse_to() -> None:
    for name, pair in PAIRS.entries.items():
        assert str(parse_pair(name, list)) == name
        if pair.ladder is None:
            assert pair.students and pair.teacher not in pair.students
        else:
            assert pair.students == FAMILIES.get(pair.ladder).models


def test_every_recipe_exists() -> None:
    for spec, preset, role in itertools.product(DATASETS.entries.values(), BUDGETS, ("teacher", "student")):
        recipe = recipe_for(role, spec, preset)
        small = (spec.name, preset) == ("digits", "quick")  # 8 x 8 images need no 32 pixels
        assert recipe.input_size == (12 if small else spec.input_size)
        assert recipe.views == ("resized-crop" if spec.input_size >= 96 else "crop")
        assert all(m < recipe.epochs for m in recipe.milestones)
        assert (recipe.schedule == "step") == bool(recipe.milestones)
    assert {name: preset.name for name, preset in BUDGETS.items()} == {name: name for name in BUDGETS}


def test_methods_search_inside_their_bounds_and_have_losses() -> None:
    for name, spec in METHODS.entries.items():
        spec.check()
        assert {*spec.space, *spec.defaults} <= set(spec.bounds)
        for knob, dimension in spec.space.items():
            low, high = spec.bounds[knob]
            assert low <= dimension.low < dimension.high <= high  # type: ignore[operator]
        for knob, value in spec.defaults.items():
            assert spec.bounds[knob][0] <= value <= spec.bounds[knob][1]
        assert spec.paper or name == "hard"


def test_plug_ins_of_the_last_release_find_their_types() -> None:
    with pytest.warns(DeprecationWarning, match=r"kdbench\.catalog\.types"):
        schema = importlib.import_module("kdbench.schema")
    assert (schema.Dimension, schema.Ladder, schema.MethodSpec) == (Dimension, Family, Method)
