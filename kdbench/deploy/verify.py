"""Exported files against the network they come from, on the whole test split; int8 calibrated on training images.

The test split is read here to report what a file does. Nothing is chosen by it.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kdbench.data import Split
from kdbench.deploy.formats import Logits
from kdbench.errors import BadInput
from kdbench.stats import PairedDifference, paired_drop

AGREEMENT = 0.99
"""Share of test images on which a file of floats must predict what the network does."""
BATCH = 256


class Told(NamedTuple):
    """What a network or file says of the test split."""

    scores: NDArray[np.float32]
    """(N, classes)."""
    labels: NDArray[np.int64]
    """(N,)."""

    @property
    def right(self) -> NDArray[np.bool_]:
        """(N,)."""
        right: NDArray[np.bool_] = self.scores.argmax(1) == self.labels
        return right


class Checked(NamedTuple):
    """A file beside its network."""

    top1: float
    agreement: float
    """Share of images on which both predict the same class."""
    max_difference: float
    """Largest difference of a score."""
    drop: PairedDifference
    """Accuracy that the file loses, paired by image."""


def batches(split: Split, scale: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None) -> Iterator[Any]:
    """Images as files take them (B, C, S, S) and labels; ``scale``: (mean, std) that takes normalisation back."""
    for batch in split.plain(BATCH):
        x = batch.x.contiguous().cpu().numpy()
        yield (x if scale is None else np.clip(x * scale[1] + scale[0], 0, 1)), batch.y.cpu().numpy()


def told(run: Logits, split: Split, scale: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None) -> Told:
    """``run`` on every image."""
    parts = [(run(x), y) for x, y in batches(split, scale)]
    scores, labels = zip(*parts, strict=True)
    return Told(np.concatenate(scores), np.concatenate(labels))


def compare(network: Told, file: Told) -> Checked:
    """What was lost on the way into a file."""
    same = network.scores.argmax(1) == file.scores.argmax(1)
    difference = float(np.abs(network.scores - file.scores).max())
    return Checked(float(file.right.mean()), float(same.mean()), difference, paired_drop(network.right, file.right))


def refuse(name: str, found: Checked, least: float | None, most: float | None) -> None:
    """Refuse a file that does not do what its network does.

    Raises:
        BadInput: fewer than ``least`` predictions agree, or the accuracy falls by more than ``most``.
    """
    if least is not None and found.agreement < least:
        raise BadInput(
            f"{name} predicts the class that the network does on {found.agreement:.2%} of the test images, fewer than "
            f"{least:.0%}: it is not kept; leave this format out"
        )
    if most is not None and found.drop.mean > most:
        raise BadInput(
            f"{name} loses {100 * found.drop.mean:.2f} points on the test split (95%: {100 * found.drop.lo:.2f} to "
            f"{100 * found.drop.hi:.2f}), more than --max-drop {100 * most:g}: it is not kept"
        )


def quantize(model: Path, to: Path, images: Split, scale: Any = None) -> None:
    """An int8 ONNX file: 8-bit weights by channel, activations calibrated on ``images``; quantise and dequantise nodes
    around each operator (QDQ), which every runtime folds in its own way.

    Raises:
        BadInput: a network that onnxruntime cannot quantise.
    """
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quant_pre_process,
        quantize_static,
    )

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = batches(images, scale)

        def get_next(self) -> dict[str, Any] | None:
            found = next(self.left, None)
            return None if found is None else {"image": found[0]}

    before, logging.root.disabled = logging.root.disabled, True  # it advises at length what is done here already
    try:
        with tempfile.TemporaryDirectory() as place:
            ready = Path(place) / "ready.onnx"
            quant_pre_process(model, ready, skip_symbolic_shape=True)
            quantize_static(ready, to, Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
                            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8)  # fmt: skip
    except (RuntimeError, ValueError, TypeError, KeyError, AttributeError) as error:
        why = next(iter(str(error).splitlines()), type(error).__name__)
        raise BadInput(f"--int8: onnxruntime cannot quantise this network ({why[:200]}); leave it out") from error
    finally:
        logging.root.disabled = before
