"""What the catalog holds: families of networks, data sets, budgets."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from kdbench.config import Frozen


class Family(Frozen):
    """Students of one design, in ascending numbers of parameters."""

    name: str
    """What ``--pair TEACHER:NAME`` calls it."""
    models: tuple[str, ...]
    """timm model names, smallest first."""
    note: str = ""
    """One line on where such models are deployed."""


Ladder = Family
"""Its name up to release 0.1, for plug-ins; it goes with the next."""


class Pair(Frozen):
    """One teacher and the students measured under it."""

    teacher: str
    """timm name of the teacher, or several of them, as ``kdbench.catalog.teachers`` reads."""
    students: tuple[str, ...]
    """timm names of the students, in the order given (a family's is ascending)."""
    ladder: str | None = None
    """The family's name when the students are exactly one family; as sweep.json has called it from the start."""

    def __str__(self) -> str:
        return f"{self.teacher}:{self.ladder or ','.join(self.students)}"


class DatasetSpec(Frozen):
    """A labelled image data set: what is fixed about it before any byte is read."""

    name: str
    """Catalog name, ``folder:/path`` or ``hf:name``."""
    classes: int
    """Number of classes."""
    shape: tuple[int, int, int]
    """(channels, height, width) of a stored image, before ``Recipe.input_size``."""
    mean: tuple[float, ...]
    """Per-channel mean of pixels in [0, 1]."""
    std: tuple[float, ...]
    """Per-channel standard deviation of pixels in [0, 1]."""
    flip: bool = True
    """Whether a mirrored image keeps its class (false for digits)."""
    fit: Literal["pad", "resize"] = "resize"
    """How an image reaches ``Recipe.input_size``: zero border, or bilinear."""
    sizes: dict[str, int] = Field(default_factory=dict)
    """Published number of samples per split, where known."""
    input_size: int = 32
    """Side length (pixels) that recipes use unless they say otherwise."""
    teacher_floor: float = 0.0
    """Validation accuracy (fraction) below which a teacher is refused."""
    license: str = ""
    """Licence or terms, as published."""
    source: str = ""
    """Where the bytes come from, for a person to read."""
    labels: tuple[str, ...] = ()
    """What the classes are called, where numbers are not their names."""


class Dimension(Frozen):
    """What Optuna may choose for one hyper-parameter: a range, or a list of values."""

    low: float | None = None
    """Smallest value of a range."""
    high: float | None = None
    """Largest value of a range."""
    log: bool = False
    """Sample the range on a logarithmic scale."""
    choices: tuple[float, ...] | None = None
    """Fixed values instead of a range."""

    def __str__(self) -> str:
        """As it is written: ``1..20`` or ``1,2,4``."""
        if self.choices is not None:
            return ",".join(f"{choice:.12g}" for choice in self.choices)
        return f"{self.low:.12g}..{self.high:.12g}"

    @model_validator(mode="after")
    def _range_or_choices(self) -> Dimension:
        ranged = self.low is not None and self.high is not None
        if ranged == (self.choices is not None):
            raise ValueError("give either low and high, or choices")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}")
        if self.log and self.low is not None and self.low <= 0:
            raise ValueError(f"a logarithmic range must start above 0, not at {self.low}")
        if self.choices is not None and not self.choices:
            raise ValueError("choices must not be empty")
        return self


class Budget(Frozen):
    """How much a sweep may spend."""

    name: str = "quick"
    """Preset it came from."""
    trials: int = Field(4, ge=1)
    """Search trials per student size and method."""
    seeds: int = Field(3, ge=1)
    """Fresh seeds of the confirm phase."""
    limit: int | None = None
    """Training samples used (None: all)."""
