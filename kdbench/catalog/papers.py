"""Published experiments that the catalog knows: what was run, and where it is written down."""

from __future__ import annotations

from pydantic import Field

from kdbench.catalog.registry import Registry
from kdbench.schema import Frozen


class Paper(Frozen):
    """One published distillation experiment."""

    name: str
    """Short id: first author or benchmark, year or method, data set."""
    title: str
    """Title of the paper."""
    citation: str
    """Authors, venue, year, identifier."""
    note: str
    """What was compared, in a sentence."""
    dataset: str
    """Catalog name of the data set."""
    methods: tuple[str, ...] = Field(default=("kd",))
    """Catalog names of the losses it is about."""


BUILTIN: tuple[Paper, ...] = (
    Paper(
        name="hinton2015-mnist",
        title="Distilling the Knowledge in a Neural Network",
        citation="G. Hinton, O. Vinyals, J. Dean; NIPS Deep Learning Workshop 2014; arXiv:1503.02531",
        note="Section 3: a two-layer net of 1200 units teaches one of 800; test errors 67 (teacher), 146 (hard "
        "labels), 74 (distilled, T = 20) of 10,000.",
        dataset="mnist",
    ),
    Paper(
        name="cifar100-crd",
        title="Contrastive Representation Distillation",
        citation="Y. Tian, D. Krishnan, P. Isola; ICLR 2020; arXiv:1910.10699",
        note="Tables 1 and 2: thirteen teacher-student pairs; plain distillation as 0.1 CE + 0.9 KL at T = 4, "
        "240 epochs. The recipe that later CIFAR-100 tables share.",
        dataset="cifar100",
    ),
    Paper(
        name="cifar100-dkd",
        title="Decoupled Knowledge Distillation",
        citation="B. Zhao, Q. Cui, R. Song, Y. Qiu, J. Liang; CVPR 2022; arXiv:2203.08679",
        note="The same pairs with target and non-target parts weighted apart, alpha_t = 1, beta by pair.",
        dataset="cifar100",
        methods=("kd", "dkd"),
    ),
    Paper(
        name="cifar100-ls",
        title="Logit Standardization in Knowledge Distillation",
        citation="S. Sun, W. Ren, J. Li, R. Wang, X. Cao; CVPR 2024; arXiv:2403.01427",
        note="The same pairs on z-scored logits.",
        dataset="cifar100",
        methods=("kd", "kd-ls", "dkd"),
    ),
    Paper(
        name="imagenet-resnet34-resnet18",
        title="Contrastive Representation Distillation; Knowledge Distillation from A Stronger Teacher",
        citation="Y. Tian et al., ICLR 2020, arXiv:1910.10699; T. Huang, S. You, F. Wang, C. Qian, C. Xu, "
        "NeurIPS 2022, arXiv:2205.10536",
        note="The usual large-scale check: a ResNet-34 teaches a ResNet-18 for 100 epochs; its hard-label "
        "top-1 accuracy is about 70%, and good losses add one to two points.",
        dataset="imagenet-1k",
        methods=("kd", "dkd", "dist"),
    ),
)

PAPERS: Registry[Paper] = Registry("paper", {paper.name: paper for paper in BUILTIN}, "kdbench.papers", Paper)
