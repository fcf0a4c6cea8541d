"""What a paper's file says: rows with published numbers, and the protocol that makes ours comparable."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from kdbench.catalog.pairs import plain_name
from kdbench.config import DataConfig, Frozen, Hyper, Recipe

Measure = Literal["errors", "error_rate", "accuracy", "bias"]
UNITS: dict[str, str] = {"errors": "errors", "error_rate": "% error", "accuracy": "%", "bias": "bias"}
DECIMALS: dict[str, int] = {"errors": 1, "error_rate": 1, "accuracy": 2, "bias": 1}


class RunSpec(Frozen):
    """One kind of training run; it is made once for every seed."""

    name: str
    """What cells and students call it."""
    model: Annotated[str, BeforeValidator(lambda name: plain_name(name) if isinstance(name, str) else name)]
    """timm name."""
    recipe: str
    """Key of the paper's ``recipes``."""
    teacher: str | None = None
    """Name of the run that teaches it."""
    weights: str | None = None
    """Weights that somebody else trained, used as they are: what ``--teacher-weights`` takes. A file's path starts at
    the folder of the paper's file."""
    method: str = "hard"
    """Catalog name of the loss."""
    hyper: Hyper = Field(default_factory=dict)
    """The loss's hyper-parameters."""
    data: dict[str, Any] = Field(default_factory=dict)
    """What differs from the paper's ``data`` (``train_classes``: a transfer set)."""
    seeds: int | None = Field(None, ge=1)
    """At most so many seeds; None: the paper's."""
    phase: Literal["search", "confirm"] = "confirm"
    """``search`` for runs that only choose a setting: their test split is never opened."""


class Bias(Frozen):
    """A correction after training: one number added to the output biases of some classes."""

    classes: tuple[int, ...]
    """Whose biases are moved, all by the same number."""
    reach: float = 20.0
    """Numbers from -reach to reach are tried, in steps of 0.1."""


class Cell(Frozen):
    """One number of the paper, and the run whose number stands beside it."""

    id: str
    """What ``--rows`` selects by."""
    what: str
    """The row in words."""
    group: str = ""
    """Rows of one group stand together."""
    column: str = ""
    """In a grid of pairs and methods: the method."""
    run: str | None = None
    """Name of the run; None: never run here, see ``reason``."""
    measure: Measure = "accuracy"
    """What is counted on the test split: wrong samples, their share, the share of right ones, or a bias."""
    of_classes: tuple[int, ...] | None = None
    """Count only test samples of these classes."""
    bias: Bias | None = None
    """Correct the biases first, by a number chosen on the validation split."""
    published: float | None = None
    """The paper's number (percent for shares); None: the paper gives none."""
    reported: str = ""
    """How the paper's number was reported; "mean of N runs", "best epoch" and "chosen on test" decide what of ours it
    is compared with."""
    source: str = ""
    """Where the number is written down, if not where the paper's others are."""
    reason: str = ""
    """Why it is never run here."""

    @property
    def judged(self) -> Literal["last", "best", "on_test"]:
        """Which of our numbers was chosen as the published one was."""
        return "on_test" if "chosen on test" in self.reported else "best" if "best epoch" in self.reported else "last"

    @property
    def published_runs(self) -> int:
        """How many runs the published number is the mean of."""
        told = re.search(r"mean of (\d+) runs", self.reported)
        return int(told[1]) if told else 1


class Claim(Frozen):
    """A sentence of the paper that a figure and our runs answer."""

    id: str
    """Names the figure."""
    kind: Literal["gap-closed", "temperatures-similar", "temperatures-best", "unseen-class"]
    """Which question it is; decides what is drawn and tested."""
    text: str
    """The claim in our words."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Runs and cells that answer it."""


class PaperFile(Frozen):
    """A published table with its protocol, whole."""

    name: str
    """Id: the file's name."""
    title: str
    """Title of the paper."""
    citation: str
    """Authors, venue, year, identifier."""
    note: str
    """What was compared, in a sentence."""
    source: str
    """Where the published numbers were read."""
    dataset: str
    """Catalog name of the data set."""
    methods: tuple[str, ...] = ("kd",)
    """Catalog names of the losses it is about."""
    seeds: int = Field(3, ge=1)
    """Runs of each kind."""
    first_seed: int = 0
    """The first of them."""
    teachers: Literal["one", "each"] = "one"
    """Whether all students learn from the teacher of the first seed, or each from that of its own seed."""
    data: dict[str, Any] = Field(default_factory=dict)
    """Fields of ``DataConfig`` beside the name."""
    recipes: dict[str, Recipe]
    """Training recipes by name."""
    runs: tuple[RunSpec, ...]
    """Every kind of run."""
    cells: tuple[Cell, ...]
    """Every number, in the order of the table."""
    claims: tuple[Claim, ...] = ()
    """Qualitative claims."""
    protocol: tuple[str, ...] = ()
    """What the paper says about its protocol, a line each."""
    departures: tuple[str, ...] = ()
    """Where this protocol differs from the paper's, a line each: printed under the table."""
    disagreements: tuple[str, ...] = ()
    """What other reruns or tables say: printed under the table."""

    def data_config(self, run: RunSpec) -> DataConfig:
        """The samples of a run."""
        return DataConfig.model_validate({"name": self.dataset, **self.data, **run.data})

    def run(self, name: str) -> RunSpec:
        """The run called ``name`` (``load`` checked that there is one)."""
        return next(run for run in self.runs if run.name == name)
