"""Teachers, named pairs, and the reading of ``--pair TEACHER:STUDENTS``."""

from __future__ import annotations

from collections.abc import Callable, Collection
from itertools import chain

from kdbench.catalog.families import BUILTIN, FAMILIES
from kdbench.catalog.registry import Registry
from kdbench.catalog.teachers import chain_of, written
from kdbench.catalog.types import Family, Pair
from kdbench.errors import BadInput, unknown

_TEACHER_OF: dict[str, str] = {
    "cifar-resnet": "cifar_resnet32x4",
    "cifar-wrn": "cifar_wrn_40_2",
    "convnextv2": "convnextv2_base",
    "deit": "regnety_160",
    "efficientnet": "efficientnet_b4",
    "efficientnet-lite": "efficientnet_b4",
    "hinton-mlp": "hinton_mlp_1200",
    "levit": "regnety_160",
    "regnety": "regnety_032",
    "test-tiny": "test_resnet",
    "vit": "vit_base_patch16_224",
}
"""The teacher of each family's named pair; resnet50 where none is given."""

TEACHERS: tuple[str, ...] = tuple(
    dict.fromkeys(("resnet50", "resnet101", "resnet34", "wide_resnet50_2", "resnext50_32x4d", *_TEACHER_OF.values()))
)
"""Usual teachers; any other timm name works too."""

CIFAR_NETS: tuple[str, ...] = (
    *("resnet8x4", "resnet20", "resnet32", "resnet32x4", "resnet56", "resnet110", "ResNet50"),
    *("wrn_16_2", "wrn_40_1", "wrn_40_2", "vgg8", "vgg13", "MobileNetV2", "ShuffleV1", "ShuffleV2"),
)
"""What the CIFAR-100 tables call their networks; ``cifar_model`` gives the name here."""

_CIFAR_PAIRS = """
    wrn_40_2:wrn_16_2 wrn_40_2:wrn_40_1 resnet56:resnet20 resnet110:resnet20 resnet110:resnet32 resnet32x4:resnet8x4
    vgg13:vgg8 vgg13:MobileNetV2 ResNet50:MobileNetV2 ResNet50:vgg8 resnet32x4:ShuffleV1 resnet32x4:ShuffleV2
    wrn_40_2:ShuffleV1
    resnet32x4:wrn_16_2 resnet32x4:wrn_40_2 wrn_40_2:resnet8x4 wrn_40_2:MobileNetV2
"""
"""The thirteen pairs of CRD (arXiv:1910.10699, tables 1 and 2); in the last line those that later tables add."""


class NamedPair(Pair):
    """A pair filed under a name; ``--pair NAME`` and ``kdbench ls pairs`` know it."""

    name: str
    """What the registry calls it: ``teacher:family`` or ``teacher:student`` for the built-in ones."""


def _named(family: Family) -> NamedPair:
    teacher = _TEACHER_OF.get(family.name, "resnet50")
    return NamedPair(name=f"{teacher}:{family.name}", teacher=teacher, students=family.models, ladder=family.name)


def cifar_model(paper_name: str) -> str:
    """The name here of a network of the CIFAR-100 tables: ``ShuffleV1`` -> ``cifar_shufflev1``.

    It is never guessed from a ``--pair``, because timm's own ``resnet50`` and ``vgg13`` are other networks.

    Raises:
        BadInput: the tables have no such network.
    """
    if paper_name not in CIFAR_NETS:
        raise unknown("network of the CIFAR-100 tables", paper_name, CIFAR_NETS, "one of " + ", ".join(CIFAR_NETS))
    return f"cifar_{paper_name.lower()}"


def _from_table(text: str) -> NamedPair:
    teacher, student = (cifar_model(name) for name in text.split(":"))
    return NamedPair(name=f"{teacher}:{student}", teacher=teacher, students=(student,))


_BUILTIN_PAIRS = (*map(_named, BUILTIN), *map(_from_table, _CIFAR_PAIRS.split()))

PAIRS: Registry[NamedPair] = Registry("pair", {p.name: p for p in _BUILTIN_PAIRS}, "kdbench.pairs", NamedPair)


def plain_name(text: str) -> str:
    """A timm name without what the Hugging Face hub puts before it: ``hf-hub:timm/resnet50.a1_in1k``."""
    return text.strip().removeprefix("hf-hub:").removeprefix("timm/")


def parse_pair(text: str, known_models: Callable[[], Collection[str]], *, tags: bool = False) -> Pair:
    """``TEACHER:STUDENTS`` as a ``Pair``; students are family names and timm names, comma-separated; a teacher may be
    made of several networks (``kdbench.catalog.teachers``).

    The order given is kept and repeated students are dropped. The name of a registered pair also works.
    ``known_models`` (timm's names) is called only for a name that the catalog does not have. Names may be written as
    the Hugging Face hub does (``timm/resnet50.a1_in1k``); a teacher keeps its tag, which says which pretrained weights
    are meant, a student begins at random and loses it (unless ``tags``).

    Raises:
        BadInput: no colon, an empty side, or a name that nobody knows, with the closest one.
    """
    text = text.strip().removeprefix("hf-hub:")
    teacher, colon, rest = (part.strip() for part in text.partition(":"))
    if not colon:
        return _by_name(text)
    if not teacher:
        raise BadInput(f"--pair '{text}' names no teacher: write TEACHER:STUDENTS, e.g. resnet50:mobilenetv3")
    chain = tuple(tuple(one._replace(model=plain_name(one.model)) for one in stage) for stage in chain_of(teacher))
    teacher, parts = written(chain), [plain_name(part) for part in rest.split(",")]
    if not any(parts):
        raise BadInput(f"--pair '{text}' names no students: write a family or models, e.g. {teacher}:mobilenetv3")
    if not all(parts):
        raise BadInput(f"--pair '{text}' has a comma with no student beside it: leave it out, or name one")
    for name in (one.model for stage in chain for one in stage):
        if name in FAMILIES:
            raise BadInput(f"teacher '{name}' is a family of students: name one model, e.g. resnet50:{rest}")
        _check("teacher", name, known_models, extra=())
    students: list[str] = []
    for part in parts:
        if part not in FAMILIES:
            _check("student", part, known_models, extra=FAMILIES.names())
        students.extend(FAMILIES.get(part).models if part in FAMILIES else [part if tags else part.split(".")[0]])
    family = parts[0] if len(set(parts)) == 1 and parts[0] in FAMILIES else None
    return Pair(teacher=teacher, students=tuple(dict.fromkeys(students)), ladder=family)


def _by_name(text: str) -> Pair:
    """A registered pair, for text without a colon."""
    if text and text in PAIRS:
        found = PAIRS.get(text)
        parts = [FAMILIES.get(one).models if one in FAMILIES else (one,) for one in found.students]
        family = found.students[0] if len(found.students) == 1 and found.students[0] in FAMILIES else found.ladder
        return Pair(teacher=found.teacher, students=tuple(dict.fromkeys(chain.from_iterable(parts))), ladder=family)
    wanted = text if text in FAMILIES else "mobilenetv3"
    raise BadInput(f"--pair '{text}' has no colon: write TEACHER:STUDENTS, e.g. resnet50:{wanted}")


def _check(kind: str, name: str, known_models: Callable[[], Collection[str]], extra: Collection[str]) -> None:
    """Refuse ``name`` if neither the catalog nor timm has it; ``extra`` are further names to suggest."""
    families = chain.from_iterable(family.models for family in FAMILIES.entries.values())
    catalog, base = {*TEACHERS, *map(cifar_model, CIFAR_NETS), *families}, name.split(".")[0]
    if base not in catalog and base not in (known := known_models()):
        raise unknown(kind, name, [*extra, *catalog, *known], "`kdbench ls pairs`, or any timm model name")
