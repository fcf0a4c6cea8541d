"""``kdbench export``: a trained student as files that run without kdbench."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from kdbench.cli.common import SPEC_FILE, find_sweep, print_json, print_table
from kdbench.cli.options import RESULTS, JsonFlag, OutOption

_KINDS = "timm, onnx, torch-export, openvino, executorch, litert."


def _found(what: str, out: Path) -> tuple[Path, str | None]:
    """``SWEEP[:STUDENT|RUN]``: the folder, and which of its students."""
    whole = (out.expanduser() / what / SPEC_FILE).is_file() or (Path(what).expanduser() / SPEC_FILE).is_file()
    sweep, colon, which = what.rpartition(":")
    return (find_sweep(what, out), None) if whole or not colon else (find_sweep(sweep, out), which)


def export(
    what: Annotated[str, typer.Argument(metavar="SWEEP[:STUDENT|RUN]", help="One student or run of a sweep, or all.")],
    formats: Annotated[str, typer.Option("--format", metavar="NAME,...", help=_KINDS)] = "timm,onnx",
    int8: Annotated[bool, typer.Option("--int8", metavar="", help="Also an 8-bit ONNX file.")] = False,
    half: Annotated[bool, typer.Option("--half", metavar="", help="Graphs compute in 16 bits.")] = False,
    normalize: Annotated[
        bool, typer.Option("--normalize", metavar="", help="Graphs take pixels in [0, 1] and normalise them.")
    ] = False,
    softmax: Annotated[bool, typer.Option("--softmax", metavar="", help="Graphs give probabilities.")] = False,
    qat: Annotated[int, typer.Option(metavar="EPOCHS", help="Train on for the 8-bit file, under the teacher.")] = 0,
    calibration: Annotated[int, typer.Option(help="Training images that int8 is calibrated on.")] = 256,
    max_drop: Annotated[
        float | None, typer.Option(help="Accuracy (0.01: a point) that int8 may lose. [dim](any)[/dim]")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder to write. [dim](export/STUDENT in the sweep's)[/dim]")
    ] = None,
    push: Annotated[str | None, typer.Option(metavar="hf:USER/NAME", help="Upload it. [dim](stays here)[/dim]")] = None,
    out: OutOption = RESULTS,
    as_json: JsonFlag = False,
) -> None:
    """Write trained students as files for timm, ONNX and other runtimes, each verified on the whole test split.

    Examples:
        kdbench export digits-resnet50-mobilenetv3-kd:mobilenetv3_small_050

        kdbench export mine:mobilenetv3_small_050 --format onnx --int8 --normalize --softmax --output shipped

        kdbench export mine --int8 --qat 3 --max-drop 0.01
    """
    folder, which = _found(what, out)

    def say(text: str) -> None:
        sys.stderr.write(f"{text} ...\n")
        sys.stderr.flush()

    say(f"exporting from {folder}")
    from kdbench.result import Result

    wanted = {"int8": int8, "half": half, "normalize": normalize, "softmax": softmax, "calibration": calibration,
              "max_drop": max_drop, "qat": qat}  # fmt: skip
    names = tuple(dict.fromkeys(part.strip() for part in formats.split(",") if part.strip()))
    done = Result(folder).export(which, formats=names, output=output, push=push, say=say, **wanted)
    if as_json:
        print_json(done)
        return
    for one in done:
        rows = [
            (each["file"], f"{each['bytes'] / 1e6:.2f} MB", f"{100 * each['top1']:.2f}%",
             f"{100 * each['agreement']:.2f}%", f"{each['max_difference']:.1e}",
             f"{100 * each['drop']:.2f} [{100 * each['drop_lo']:.2f}, {100 * each['drop_hi']:.2f}]")
            for each in one["files"]
        ]  # fmt: skip
        title = f"{one['student']} ({one['method']}, run {one['run']}): {one['folder']}"
        print_table(title, ("file", "size", "top-1", "agrees", "largest difference", "points lost"), rows)
