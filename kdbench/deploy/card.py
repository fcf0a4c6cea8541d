"""The model card of an exported student."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from kdbench.catalog.types import DatasetSpec
from kdbench.config import CONTROLS, HARD
from kdbench.run.words import counted


def card(held: Mapping[str, Any], spec: DatasetSpec, labels: Sequence[str], preprocess: Mapping[str, Any]) -> str:
    """README.md in Markdown, with the header that the Hugging Face hub reads. ``held`` is export.json."""
    head = [
        "---",
        "library_name: timm",
        "pipeline_tag: image-classification",
        "tags: [knowledge-distillation, timm]",
        "---",
    ]
    settings = ", ".join(f"{name} {value:.4g}" for name, value in sorted(held["hyper"].items()))
    how = f"distilled from {held['teacher']} by {held['method']}" if held["teacher"] else "trained on hard labels"
    how = {HARD: how}.get(held["method"], f"{how} ({CONTROLS[held['method']]})" if held["method"] in CONTROLS else how)
    over = held["over_seeds"]
    span = over.get("test_acc_lo"), over.get("test_acc_hi")
    known = all(isinstance(end, float) and not math.isnan(end) for end in span)
    interval = f", 95% interval {100 * span[0]:.2f} to {100 * span[1]:.2f}" if known else ""
    own, mean = (f"{100 * each['test_acc']:.2f}%" for each in (held, over))
    lines = [
        *head, "", f"# {held['student']} on {held['dataset']}", "",
        f"{held['student']}, {how}{f' ({settings})' if settings else ''}; {held['params']:,} parameters, "
        f"{held['macs']:,} multiply-accumulates an image.", "",
        f"Test accuracy of this network: **{own}** (seed {held['seed']}, chosen among its seeds by validation). "
        f"Over {over['n_seeds']} seeds the mean is {mean}{interval}: what to expect of the recipe.",
        "", "| file | format | size | top-1 | same class as the network | largest difference | accuracy lost |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]  # fmt: skip
    for file in held["files"]:
        lines.append(
            f"| {file['file']} | {file['format']} | {file['bytes'] / 1e6:.2f} MB | {100 * file['top1']:.2f}% "
            f"| {100 * file['agreement']:.2f}% | {file['max_difference']:.1e} | {100 * file['drop']:.2f} points "
            f"[{100 * file['drop_lo']:.2f}, {100 * file['drop_hi']:.2f}] |"
        )
    lines += ["", "Each file ran the whole test split in its own runtime; nothing was chosen by it.", ""]
    if any(file["format"] == "int8" for file in held["files"]):
        from_ = next(file["calibration"] for file in held["files"] if file["format"] == "int8")
        lines += [f"int8: 8-bit weights by channel, activations calibrated on {from_['images']} training images "
                  f"(stratified, seed {from_['seed']})."]  # fmt: skip
        if qat := next(file.get("qat") for file in held["files"] if file["format"] == "int8"):
            lines[-1] += (
                f" Before that the network was trained for {counted(qat['epochs'], 'epoch')} more with both rounded in "
                f"each step; without, its int8 file loses {100 * qat['without']['drop']:.2f} points."
            )
        lines.append("")
    lines += ["## Use", "", *_use(held, preprocess), ""]
    about = f"{spec.name.rpartition('/')[2]}: {len(labels)} classes ({_few(labels)}). {spec.source}".rstrip()
    lines += ["## Data", "", about,
              f"Licence: {spec.license or 'not stated; ask whoever made the images'}.", ""]  # fmt: skip
    lines += ["## Made by", "", "```", held["made_by"], "```", "", f"kdbench {held['kdbench']}, run {held['run']}.",
              "If you use it, cite kdbench (CITATION.cff) and the method's paper.", ""]  # fmt: skip
    return "\n".join(lines)


def _few(labels: Sequence[str]) -> str:
    return ", ".join(labels) if len(labels) <= 12 else f"{', '.join(labels[:10])}, ...: labels.txt"


def _use(held: Mapping[str, Any], preprocess: Mapping[str, Any]) -> list[str]:
    """How each kind of file is opened, and what it takes."""
    size, channels = preprocess["size"], preprocess["channels"]
    scaled = "pixels / 255" if held["normalize"] else f"(pixels / 255 - {preprocess['mean']}) / {preprocess['std']}"
    gives = "probabilities" if held["softmax"] else "logits"
    lines = [f"Graphs take float32 (batch, {channels}, {size}, {size}), {scaled}, and give {gives}; "
             "how an image is cut is in preprocess.json.", "", "```python"]  # fmt: skip
    for file in held["files"]:
        if file["format"] == "timm":
            lines += [
                "from load import load  # in this folder: timm, torch, safetensors",
                "network = load()  # normalised images -> logits",
            ]
        elif file["format"] in ("onnx", "int8"):
            lines += [
                f'session = onnxruntime.InferenceSession("{file["file"]}"); session.run(None, {{"image": images}})'
            ]
        elif file["format"] == "torch-export":
            lines += [f'network = torch.export.load("{file["file"]}").module()']
        elif file["format"] == "executorch":
            lines += [f'Runtime.get().load_program("{file["file"]}").load_method("forward")  # one image a call']
        elif file["format"] == "litert":
            lines += [f'ai_edge_litert.interpreter.Interpreter("{file["file"]}")  # one image a call']
        elif file["format"] == "openvino":
            lines += [f'network = openvino.Core().compile_model("{file["file"]}", "CPU")']
    return [*lines, "```", "", f"preprocess.json: `{json.dumps(preprocess)}`"]
