"""A benchmark's figures as Markdown."""

from __future__ import annotations

import statistics
from typing import Any


def to_markdown(figures: dict[str, Any]) -> str:
    """Rates, ratios, the whole sweep, and what they were measured on."""
    setting, machine = figures["setting"], figures["machine"]
    about = ", ".join(f"{name} {value}" for name, value in machine.items())
    lines = [
        f"# {setting['teacher']}:{setting['student']} on {setting['dataset']}",
        "",
        f"{setting['limit']:,} images as 3 × 32 × 32 where the data set is small, batch {setting['batch_size']}, fp32, "
        f"device {setting['device']}; {setting['rounds']} alternating rounds of {setting['seconds']:g} s.",
        f"Machine: {about}. {figures['date'][:10]}, `{figures['command']}`.",
        "",
        "| images/s | median | smallest | largest |",
        "|---|---:|---:|---:|",
    ]
    for name, rates in sorted(figures["rates"].items(), key=lambda item: statistics.median(item[1])):
        lines.append(f"| {name} | {statistics.median(rates):,.0f} | {min(rates):,.0f} | {max(rates):,.0f} |")
    lines += ["", "| ratio | median of rounds | smallest | largest |", "|---|---:|---:|---:|"]
    lines += [f"| {name} | {a:.2f} | {b:.2f} | {c:.2f} |" for name, (a, b, c) in figures["ratios"].items()]
    lines += [f"\nNot run: {name} ({reason})." for name, reason in figures["absent"].items()]
    if ledger := figures.get("sweep"):
        lines += ["", "## A whole sweep", "", ledger["what"], "", "| seconds | |", "|---|---:|"]
        lines += [f"| {name} | {value:,.0f} |" for name, value in ledger["seconds"].items()]
        lines += ["", "| ratio | |", "|---|---:|"]
        lines += [f"| {name} | {value:.2f} |" for name, value in ledger["ratios"].items()]
    if mlp := figures.get("mlp"):
        lines += _mlp(mlp)
    return "\n".join(lines) + "\n"


def _mlp(mlp: dict[str, Any]) -> list[str]:
    """Milliseconds of the MNIST networks' steps."""
    lines = [
        "",
        "## Hinton's MNIST networks",
        "",
        f"Batch {mlp['batch']}, {mlp['threads']} threads, fp32 but for bf16.",
    ]
    for name, held in mlp["networks"].items():
        lines += [
            "",
            f"| {name} | ms a step, median | smallest | largest | plain PyTorch takes |",
            "|---|---:|---:|---:|---:|",
        ]
        for label, times in held["milliseconds"].items():
            ratio = held["ratios"].get(f"plain PyTorch / {label}")
            figures = [f"{statistics.median(times):.2f}", f"{min(times):.2f}", f"{max(times):.2f}"]
            lines.append(f"| {label} | {' | '.join(figures)} | {f'{ratio[0]:.2f} ×' if ratio else ''} |")
    return lines
