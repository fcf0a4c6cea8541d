"""A teacher's card: who it is, how good it was measured to be, and the floor it must reach."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from kdbench.errors import KdbenchError, MachineFault
from kdbench.files import atomic_text


class TeacherCard(BaseModel):
    """What `<cache>/teachers/<id>/card.json` holds; the weights lie beside it as model.safetensors."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
    id: str
    """Id of the training run, or of (weights, data set)."""
    model: str
    """timm name."""
    source: str
    """``trained``, ``pretrained:<tag>`` or ``file:<sha256 prefix>``; of an ensemble, these with commas."""
    val_acc: float
    """Validation accuracy, a fraction."""
    nll: float
    """Mean negative log-likelihood on validation, nats."""
    ece: float
    """Expected calibration error on validation, 15 bins."""
    params: int
    """Parameters."""
    macs: int
    """Multiply-accumulates an image."""
    config: dict[str, Any]
    """The run's whole configuration: data, recipe, seed."""
    seconds: float = 0.0
    """Training time."""
    hardware: str = ""
    """Where it was trained."""


def save_card(folder: Path, card: TeacherCard) -> None:
    """Write the card; it goes last, so that its presence means the teacher is whole."""
    atomic_text(folder / "card.json", card.model_dump_json(indent=1) + "\n")


def load_card(folder: Path) -> TeacherCard | None:
    """The card in ``folder``, or None where there is none.

    Raises:
        MachineFault: when the card is there but cannot be read.
    """
    path = folder / "card.json"
    if not path.exists() or not (folder / "model.safetensors").exists():
        return None
    try:
        return TeacherCard.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValidationError) as error:
        raise MachineFault(f"the teacher's card {path} cannot be read ({error}); delete {folder} to redo it") from error


def gate(card: TeacherCard, floor: float) -> None:
    """Refuse to distil from a teacher below its floor: an untrained head, a wrong normalisation, too few epochs.

    Raises:
        KdbenchError: naming what was measured and what to do.
    """
    if card.val_acc < floor:
        raise KdbenchError(
            f"the teacher {card.model} reached {card.val_acc:.2%} on the validation split, below its floor of "
            f"{floor:.2%}; distilling it would measure nothing. Train it longer (--teacher-epochs), give better "
            f"weights (--teacher-weights), or accept it with --teacher-floor {max(card.val_acc - 0.005, 0):.2f}"
        )
