"""Reading --pair, budgets and the promise that the catalog is cheap to import."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdbench.catalog import DATASETS, FAMILIES, parse_pair, recipe_for, registry
from kdbench.catalog.recipes import budget
from kdbench.catalog.types import Family
from kdbench.errors import BadInput


def never() -> list[str]:
    raise AssertionError("timm was asked although the catalog has the name")


def timm_names() -> list[str]:
    return ["resnet50", "resnet152", "mobilenetv3_rw"]


def test_catalog_imports_neither_torch_nor_timm() -> None:
    code = (
        "import sys; from kdbench.catalog import *; from kdbench.catalog import parse_pair as p, DATASETS as d;"
        "p('resnet50:mobilenetv3,resnet18', list); recipe_for('student', d.get('digits'), 'quick');"
        "print([m for m in ('torch', 'timm', 'pandas', 'numpy', 'optuna', 'wandb') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_family_and_exact_names() -> None:
    pair = parse_pair("resnet50:mobilenetv3", never)
    assert pair.students == FAMILIES.get("mobilenetv3").models and pair.ladder == "mobilenetv3"
    assert str(pair) == "resnet50:mobilenetv3"
    pair = parse_pair(" resnet50 : mobilenetv3_small_050 , resnet18 ", never)
    assert pair.students == ("mobilenetv3_small_050", "resnet18") and pair.ladder is None
    pair = parse_pair("resnet50:resnet18,mobilenetv3,mobilenetv3_small_050,resnet18", never)
    assert pair.students == ("resnet18", *FAMILIES.get("mobilenetv3").models) and pair.ladder is None
    assert parse_pair("resnet152:mobilenetv3_rw", timm_names).students == ("mobilenetv3_rw",)
    for teacher in ("resnet50.a1_in1k", "timm/resnet50.a1_in1k", "hf-hub:timm/resnet50.a1_in1k"):
        text = f"{teacher}:timm/resnet18.a1_in1k,resnet18,hf-hub:timm/resnet34.tv_in1k"
        assert parse_pair(text, never, tags=True).students == ("resnet18.a1_in1k", "resnet18", "resnet34.tv_in1k")
        pair = parse_pair(text, never)
        assert (pair.teacher, pair.students) == ("resnet50.a1_in1k", ("resnet18", "resnet34"))


def test_families_of_the_group_s_old_name_still_count(monkeypatch: pytest.MonkeyPatch) -> None:
    old = SimpleNamespace(name="old", load=lambda: Family(name="old", models=("resnet10t", "resnet18")))
    monkeypatch.setattr(registry, "entry_points", lambda group: [old] if group == "kdbench.ladders" else [])
    with pytest.warns(DeprecationWarning, match=r"kdbench\.families"):
        assert type(FAMILIES)("student", {}, FAMILIES.group, Family).get("old").models[1] == "resnet18"


@given(st.lists(st.sampled_from(["mobilenetv3", "resnet18", "repvgg_a0", "resnet-small", "vit"]), min_size=1))
def test_students_are_the_union_in_order(parts: list[str]) -> None:
    flat = [m for p in parts for m in (FAMILIES.get(p).models if p in FAMILIES else (p,))]
    assert list(parse_pair("resnet50:" + ",".join(parts), never).students) == list(dict.fromkeys(flat))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("resnet5O:mobilenetv3", "unknown teacher 'resnet5O': did you mean 'resnet50'"),
        ("resnet50:zzzzzz", "kdbench ls"),
        ("mobilenetv3", "resnet50:mobilenetv3"),
        ("", "no colon"),
        ("resnet50: , ,", "names no students"),
        ("mobilenetv3:resnet18", "a family of students"),
    ],
)
def test_a_wrong_pair_is_named(text: str, message: str) -> None:
    with pytest.raises(BadInput, match=message.replace("(", r"\(")):
        parse_pair(text, timm_names)


def test_budgets() -> None:
    assert budget("smoke").limit == 200
    with pytest.raises(BadInput, match="did you mean 'quick'"):
        recipe_for("student", DATASETS.get("digits"), "quik")
    cifar = recipe_for("student", DATASETS.get("cifar100"), "paper")
    assert (cifar.epochs, cifar.batch_size, cifar.lr, cifar.milestones) == (240, 64, 0.05, (150, 180, 210))
    assert recipe_for("student", DATASETS.get("digits"), "quick").stem == "native"
    assert recipe_for("student", DATASETS.get("cifar10"), "standard").stem == "small"


def test_a_user_s_own_data_gets_a_recipe() -> None:
    own = DATASETS.get("cifar10").model_copy(update={"name": "folder:/data/x", "input_size": 224})
    assert recipe_for("teacher", own, "quick").views == "resized-crop"
    assert recipe_for("teacher", own, "quick").stem == "native"
