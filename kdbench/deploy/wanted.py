"""What is asked of an export."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

from kdbench.deploy.formats import FILES, NEEDS
from kdbench.errors import BadInput, unknown


@dataclass(frozen=True)
class Wanted:
    """What is asked of an export."""

    formats: tuple[str, ...] = ("timm", "onnx")
    int8: bool = False
    half: bool = False
    normalize: bool = False
    softmax: bool = False
    calibration: int = 256
    """Training images, stratified by the sweep's own split seed, that the int8 file's ranges are measured on."""
    qat: int = 0
    """Epochs that the student is trained on for its int8 file (``kdbench.deploy.qat``)."""
    max_drop: float | None = None
    """Accuracy (fraction) that the int8 file may lose."""

    def check(self) -> None:
        """Refuse what cannot be, before anything is read.

        Raises:
            BadInput: an unknown format, a package that is absent, options that contradict each other.
        """
        if not self.formats:
            raise BadInput(f"format must name at least one of {', '.join(FILES)}")
        for name in self.formats:
            if name not in FILES:
                raise unknown("format", name, FILES, "one of " + ", ".join(FILES))
        for name in [*self.formats, *(["int8"] if self.int8 else [])]:
            if name in NEEDS and importlib.util.find_spec(NEEDS[name]) is None:
                extra = "export" if name in ("onnx", "int8") else f"{name},export" if name == "openvino" else name
                what = "--int8" if name == "int8" else f"--format {name}"
                raise BadInput(f"{what} needs the package '{NEEDS[name]}': pip install 'kdbench[{extra}]'")
        if self.int8 and "onnx" not in self.formats:
            raise BadInput("--int8 makes an ONNX file from the float one: add onnx to --format")
        if self.int8 and self.half:
            raise BadInput("--half and --int8 are two ways to be small: give one of them")
        if self.max_drop is not None and not self.int8:
            raise BadInput("--max-drop bounds what --int8 may lose: give both")
        if self.max_drop is not None and not 0 <= self.max_drop <= 1:
            raise BadInput(f"max-drop is a share of the test images, 0 to 1, not {self.max_drop:g}")
        if self.qat < 0 or (self.qat and not self.int8):
            raise BadInput(f"--qat {self.qat}: so many epochs, 1 or more, for the file that --int8 makes: give both")
        if self.calibration < 20:
            raise BadInput(f"calibration: activations of {self.calibration} images say little; give 20 or more")
