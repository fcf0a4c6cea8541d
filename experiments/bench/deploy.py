"""What shipping costs: ``python experiments/bench/deploy.py SWEEP`` exports every student of a finished sweep.

Each file is verified on the whole test split; post-training int8 stands beside quantisation-aware distillation over all
seeds of some students; latencies are measured twice, so that the order of the students and the overlap of the intervals
can be seen. Writes deploy.json, deploy.md and deploy.png. Keep the machine otherwise idle for the latencies.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer

import kdbench
from kdbench.config import CONTROLS, HARD
from kdbench.deploy.latency import exported, run_latency
from kdbench.files import atomic_text
from kdbench.host import cores, processor
from kdbench.report.numbers import signed
from kdbench.report.style import METHOD_COLOURS, new_figure, save, style
from kdbench.stats import paired_difference, pareto_front, t_interval

KINDS = ("fp32", "int8")


def say(text: str) -> None:
    """A line for who waits."""
    sys.stderr.write(f"{text} ...\n")


def qat(folder: Path, students: list[str], epochs: int) -> list[dict[str, Any]]:
    """By student and seed: accuracies (fractions) of the network, of its int8 file, and of that after training on."""
    result, rows = kdbench.load(folder), []
    for run in result._runs:
        config = run.config
        if config.phase != "confirm" or config.model not in students or config.condition in (HARD, *CONTROLS):
            continue
        with tempfile.TemporaryDirectory() as place:
            (held,) = result.export(config.id, formats=("onnx",), output=Path(place) / "out", int8=True, qat=epochs,
                                    say=say)  # fmt: skip
        file = next(each for each in held["files"] if each["format"] == "int8")
        rows.append({"student": config.model, "seed": config.seed, "float": held["reference_top1"],
                     "int8": file["qat"]["without"]["top1"], "qat": file["top1"]})  # fmt: skip
    return rows


def compared(rows: list[dict[str, Any]]) -> list[str]:
    """What int8 loses, with and without training on, by student: mean over seeds and 95% interval, paired."""
    lines = ["| student | seeds | float (%) | lost after training | lost with QAT | QAT better by |",
             "|---|--:|--:|--:|--:|--:|"]  # fmt: skip
    for student, own in pd.DataFrame(rows).groupby("student", sort=False):
        lost = []
        for name in ("int8", "qat"):
            mean, lo, hi = t_interval((own["float"] - own[name]).to_numpy())
            lost.append(f"{signed(mean, 2)} [{signed(lo, 2)}, {signed(hi, 2)}]")
        gap = paired_difference(own["qat"].to_numpy(), own["int8"].to_numpy())
        lines.append(f"| {student} | {len(own)} | {100 * own['float'].mean():.2f} | {' | '.join(lost)} "
                     f"| {signed(gap.mean, 2)} [{signed(gap.lo, 2)}, {signed(gap.hi, 2)}] |")  # fmt: skip
    return lines


def shipped(folder: Path, latency: pd.DataFrame) -> pd.DataFrame:
    """A row per student and precision: accuracy (fraction), bytes, milliseconds (one image, one thread), front."""
    rows = []
    for place in exported(folder):
        held = json.loads((place / "export.json").read_text(encoding="utf-8"))
        for kind, precision in zip(("onnx", "int8"), KINDS, strict=True):
            file = next(each for each in held["files"] if each["format"] == kind)
            own = latency[(latency["model"] == held["student"]) & (latency["precision"] == precision)]
            one = own[(own["infer_batch_size"] == 1) & (own["threads"] == 1)].iloc[0]
            rows.append({"student": held["student"], "precision": precision, "params": held["params"],
                         "top1": file["top1"], "drop": file["drop"], "drop_lo": file["drop_lo"],
                         "drop_hi": file["drop_hi"], "mb": file["bytes"] / 1e6,
                         "ms": one["infer_step_time"], "lo": one["lo"], "hi": one["hi"]})  # fmt: skip
    table = pd.DataFrame(rows).sort_values(["precision", "params"], ignore_index=True)
    for _, own in table.groupby("precision"):
        table.loc[own.index, "front"] = pareto_front(own["ms"], own["top1"])
    return table


def again(first: pd.DataFrame, second: pd.DataFrame) -> list[str]:
    """Whether two measurements agree, by precision: order of the students, and overlapping intervals."""
    key, lines = ["model", "precision", "infer_batch_size", "threads"], []
    both = first.merge(second, on=key, suffixes=("", "_2"))
    for (precision, batch, threads), own in both.groupby(key[1:]):
        same = (own["infer_step_time"].rank() == own["infer_step_time_2"].rank()).all()
        meet = int(((own["lo"] <= own["hi_2"]) & (own["lo_2"] <= own["hi"])).sum())
        ratio = own["infer_step_time_2"] / own["infer_step_time"]
        lines.append(f"| {precision} | {batch} | {threads} | {'yes' if same else 'no'} | {meet} of {len(own)} "
                     f"| {ratio.min():.2f} to {ratio.max():.2f} |")  # fmt: skip
    head = "| precision | batch | threads | same order | intervals overlap | second / first |"
    return [head, "|---|--:|--:|---|--:|--:|", *lines]


def picture(table: pd.DataFrame, place: Path) -> None:
    """Accuracy over latency, a panel each for 32 and 8 bits, the front joined."""
    with style():
        figure = new_figure(11, 4.4)
        for number, (precision, own) in enumerate(table.groupby("precision")):
            axes = figure.add_subplot(1, 2, number + 1)
            front = own[own["front"].astype(bool)].sort_values("ms")
            axes.step(front["ms"], 100 * front["top1"], where="post", color=METHOD_COLOURS[0], linewidth=1)
            reach = np.abs(own[["lo", "hi"]].to_numpy().T - own["ms"].to_numpy())
            axes.errorbar(own["ms"], 100 * own["top1"], xerr=reach, fmt="o", color=METHOD_COLOURS[0])
            for row in own.itertuples():
                name, at = str(row.student).removeprefix("mobilenetv3_"), (row.ms, 100 * row.top1)
                side, off = ("right", (-5, 6)) if row.front else ("left", (5, -14))
                axes.annotate(name, at, textcoords="offset points", xytext=off, ha=side)
            axes.set(title=precision, xlabel="Milliseconds an image, one thread", ylabel="Accuracy of the file (%)")
            axes.set_ylim(100 * table["top1"].min() - 0.4, 100 * table["top1"].max() + 0.4)
            axes.set_xlim(0, 1.1 * table["ms"].max())
        save(figure, place, "deploy")


def markdown(found: dict[str, Any], table: pd.DataFrame, twice: list[str]) -> str:
    """The record's page."""
    wide = table.pivot(index="student", columns="precision")
    wide = wide.loc[wide["params", "fp32"].sort_values().index]
    lines = [
        f"# Students of {found['sweep']} as files", "",
        f"ONNX Runtime on {found['hardware']}, one image, one thread; every file ran the whole test split. Of each the "
        "seed that is best on validation is exported; in brackets the 95% interval of the drop, paired by image.", "",
        "| student | params | 32 bits (%) | 8 bits (%) | lost | MB | in 8 bits | ms | in 8 bits | on front |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|---|",
    ]  # fmt: skip
    for student, row in wide.iterrows():
        fronts = [kind for kind in KINDS if row["front", kind]]
        span = ", ".join(signed(row[end, "int8"], 2) for end in ("drop_lo", "drop_hi"))
        acc = " | ".join(f"{100 * row['top1', kind]:.2f}" for kind in KINDS)
        size, pace = (" | ".join(f"{row[name, kind]:.3f}" for kind in KINDS) for name in ("mb", "ms"))
        lines.append(f"| {student} | {row['params', 'fp32']:,} | {acc} | {signed(row['drop', 'int8'], 2)} [{span}] "
                     f"| {size} | {pace} | {', '.join(fronts) or 'neither'} |")  # fmt: skip
    front = table[table["front"].astype(bool)]
    same = len({frozenset(front[front["precision"] == kind]["student"]) for kind in KINDS}) == 1
    order = [list(own.sort_values("ms")["student"]) for _, own in table.groupby("precision")]
    told = "the same students are on the front" if same else "other students are on the front"
    lines += ["", f"In 8 bits {told}, in {'the same' if order[0] == order[1] else 'another'} order of latency.", ""]
    if found["qat"]:
        lines += [
            "## Trained on for 8 bits", "",
            f"{found['epochs']} epochs more under the same teacher, rounded in each step, before the file is made "
            "(`--qat`). Points of accuracy lost, mean over seeds and 95% interval.", "", *compared(found["qat"]), "",
        ]  # fmt: skip
    return "\n".join([*lines, "## Latency, measured twice", "", *twice, "", f"Made by `{found['command']}`.", ""])


def _asked(words: list[str]) -> list[str]:
    """The command's words but where its files went."""
    return [word for word, before in zip(words, ["", *words], strict=False) if "--out" not in (word, before)]


def bench(
    folder: Annotated[Path, typer.Argument(help="A finished sweep's folder.")],
    formats: Annotated[str, typer.Option(help="Beside onnx and int8.")] = "timm,onnx",
    qat_students: Annotated[str, typer.Option(help="Comma-separated; none when empty.")] = "",
    epochs: Annotated[int, typer.Option(help="Of quantisation-aware distillation.")] = 3,
    rounds: Annotated[int, typer.Option(min=6, help="Of each measurement of latency.")] = 100,
    out: Annotated[Path, typer.Option(help="Folder of deploy.json, deploy.md and deploy.png.")] = Path("deploy"),
) -> None:
    """Export, verify, train on, measure, and write what came of it."""
    names = tuple(dict.fromkeys([*formats.split(","), "onnx"]))
    if not (folder / "export").is_dir():
        kdbench.load(folder).export(formats=names, int8=True, say=say)
    found: dict[str, Any] = {
        "sweep": folder.name, "hardware": f"{processor()} ({cores()} cores)", "epochs": epochs,
        "command": " ".join(["python experiments/bench/deploy.py", *_asked(sys.argv[1:])]),
        "qat": qat(folder, qat_students.split(","), epochs) if qat_students else [],
    }  # fmt: skip
    counts = sorted({1, cores()})
    first, second = (
        run_latency(exported(folder), ["ort"], KINDS, [1, 32], counts, rounds, say) for _ in range(2)
    )  # fmt: skip
    table = shipped(folder, first)
    found |= {"files": [json.loads((place / "export.json").read_text())["files"] for place in exported(folder)],
              "latency": [each.to_dict("records") for each in (first, second)]}  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    atomic_text(out / "deploy.json", json.dumps(found, indent=1, default=float) + "\n")
    atomic_text(out / "deploy.md", markdown(found, table, again(first, second)))
    picture(table, out)


if __name__ == "__main__":
    typer.run(bench)
