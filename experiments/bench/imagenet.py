"""Data of ImageNet's size: ``python experiments/bench/imagenet.py --place DIR`` makes such JPEGs and reads them.

A folder of so many classes and images of varied sizes (textures: what is in them costs nothing). Then, each in a
process of its own: from a cold and a warm start to the first step of a student (seconds of each part), what an image
costs (reading, decoding, cutting a view), images a second and memory over epochs. Keep the machine otherwise idle.
"""

from __future__ import annotations

import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import psutil
import typer
from PIL import Image

from kdbench.files import atomic_text
from kdbench.host import cores, processor

TEST = 50
"""Of so many images one is of the test split."""


def make_class(place: Path, images: int, label: int) -> None:
    """The images of one class: a texture of the class's own, seen through windows of 200 to 500 pixels."""
    random = np.random.default_rng(label)
    whole = Image.fromarray(random.integers(0, 256, (80, 80, 3), np.uint8)).resize((640, 640), Image.Resampling.BICUBIC)
    for number in range(images):
        folder = place / ("test" if number % TEST == 0 else "train") / f"n{label:08}"
        folder.mkdir(parents=True, exist_ok=True)
        width, height = (int(side) for side in random.integers(200, 501, 2))
        left, top = (int(random.integers(0, 641 - side)) for side in (width, height))
        whole.crop((left, top, left + width, top + height)).save(folder / f"{number:06}.jpg", quality=85)


def make(place: Path, classes: int, images: int) -> None:
    """The folder, unless it is there already."""
    done = place / "made.json"
    asked = json.dumps([classes, images])
    if done.exists() and done.read_text() == asked:
        return
    with ProcessPoolExecutor(cores()) as pool:
        for number, _ in enumerate(pool.map(partial(make_class, place, images // classes), range(classes))):
            if number % 100 == 99:
                sys.stderr.write(f"{number + 1} of {classes} classes made ...\n")
    done.write_text(asked)


def start(place: Path, size: int, batch: int) -> dict[str, float]:
    """Seconds to the first step, part by part, in this process."""
    parts, since = {}, [time.perf_counter()]

    def lap(name: str) -> None:
        parts[name] = time.perf_counter() - since[-1]
        since.append(time.perf_counter())

    import torch

    from kdbench.config import DataConfig, Recipe
    from kdbench.data import load, resolve_dataset
    from kdbench.models import build

    lap("imports")
    spec, digest = resolve_dataset(f"folder:{place}")
    lap("looking into the folder")
    recipe = Recipe(views="resized-crop", input_size=size, batch_size=batch)
    data = load(spec, DataConfig(name="folder:made", digest=None, val_fraction=0.02), recipe, torch.device("cpu"))
    lap("splits")
    network = build("mobilenetv3_small_050", classes=data.classes, channels=3, input_size=size)
    first = next(iter(data.train.batches(batch_size=batch, order_seed=0, augment_seed=0, epoch=1)))
    lap("first batch")
    torch.nn.functional.cross_entropy(network(first.x), first.y).backward()
    lap("first step")
    return {**parts, "all": since[-1] - since[0], "images": float(len(data.train)), "digest": float(digest is not None)}


def read(place: Path, size: int, batch: int, epochs: int, images: int) -> dict[str, Any]:
    """Images a second and memory (MB, of this process and its readers) over epochs of ``images`` each."""
    import torch

    from kdbench.config import DataConfig, Recipe
    from kdbench.data import load, resolve_dataset

    spec, _ = resolve_dataset(f"folder:{place}")
    recipe = Recipe(views="resized-crop", input_size=size, batch_size=batch)
    config = DataConfig(name="folder:made", digest=None, val_fraction=0.02, limit=images)
    data, own = load(spec, config, recipe, torch.device("cpu")), psutil.Process()
    rates, memory = [], []
    for epoch in range(1, epochs + 1):
        since, seen, most = time.perf_counter(), 0, 0.0
        for each in data.train.batches(batch_size=batch, order_seed=0, augment_seed=0, epoch=epoch):
            seen += len(each.y)
            if seen % (20 * batch) == 0:
                family = [own, *own.children(recursive=True)]
                most = max(most, sum(one.memory_info().rss - one.memory_info().shared for one in family) / 1e6)
        rates.append(seen / (time.perf_counter() - since))
        memory.append(most)
    return {"images_a_second": rates, "memory_mb": memory, "workers": min(8, cores())}


def image(place: Path, size: int) -> dict[str, float]:
    """Milliseconds of the parts of an image's way, in one process: the median over 300."""
    import torch

    from kdbench.config import Recipe
    from kdbench.data.augment import Drawn
    from kdbench.data.samples import Fit
    from kdbench.data.views import Look, augment_of

    torch.set_num_threads(1)
    augment = augment_of(Recipe(views="resized-crop", input_size=size), flip=True)
    cut = Drawn(Fit(size, 3, "resize"), augment, Look(size, (0.5,) * 3, (0.5,) * 3), 0, None)
    times: dict[str, list[float]] = {"read": [], "decode": [], "view": []}
    for number, path in enumerate(sorted((place / "train").glob("*/*1.jpg"))[:300]):
        marks = [time.perf_counter()]
        raw = path.read_bytes()
        marks.append(time.perf_counter())
        with Image.open(io.BytesIO(raw)) as picture:
            picture.load()
        marks.append(time.perf_counter())
        cut(picture, number)
        marks.append(time.perf_counter())
        for name, one, other in zip(times, marks, marks[1:], strict=False):
            times[name].append(1000 * (other - one))
    return {name: statistics.median(each) for name, each in times.items()}


def markdown(found: dict[str, Any]) -> str:
    """The figures as a table."""
    cold, warm, parts = found["cold"], found["warm"], found["image"]
    whole = sum(parts.values())
    lines = [
        "# Data of ImageNet's size", "",
        f"{found['images']:,} JPEGs of 200 to 500 pixels a side in {found['classes']:,} classes "
        f"({found['megabytes']:,.0f} MB), views of {found['size']} pixels, batches of {found['batch']}; "
        f"{found['hardware']}.", "",
        "| seconds | cold | warm |", "|---|--:|--:|",
        *(f"| {name} | {cold[name]:.1f} | {warm[name]:.1f} |" for name in cold if name not in ("images", "digest")),
        "", "Cold: the folder was never looked into. Every image's digest is taken then, so the files are read once.",
        "", "| an image, one process | ms | share |", "|---|--:|--:|",
        *(f"| {name} | {ms:.2f} | {100 * ms / whole:.0f}% |" for name, ms in parts.items()),
        "", f"| epoch of {found['epoch_images']:,} | images/s, {found['epochs']['workers']} readers | MB at most |",
        "|---|--:|--:|",
        *(f"| {k} | {rate:,.0f} | {mb:,.0f} |" for k, (rate, mb) in enumerate(
            zip(found["epochs"]["images_a_second"], found["epochs"]["memory_mb"], strict=True), start=1)),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def bench(
    place: Annotated[Path, typer.Option(help="Where the images are made: 2.5 GB for 100,000.")],
    classes: Annotated[int, typer.Option(help="Classes.")] = 1000,
    images: Annotated[int, typer.Option(help="Images in all.")] = 100_000,
    size: Annotated[int, typer.Option(help="Pixels of a side of a view.")] = 224,
    batch: Annotated[int, typer.Option(help="Images a step.")] = 128,
    epochs: Annotated[int, typer.Option(help="Epochs that are read.")] = 3,
    epoch_images: Annotated[int, typer.Option(help="Images of each.")] = 20_000,
    out: Annotated[Path | None, typer.Option(help="Folder of imagenet.json and imagenet.md.")] = None,
    part: Annotated[str, typer.Option(hidden=True)] = "",
) -> None:
    """Print, as JSON, seconds to the first step, what an image costs, images a second and memory over epochs."""
    parts = {
        "start": lambda: start(place, size, batch), "image": lambda: image(place, size),
        "epochs": lambda: read(place, size, batch, epochs, epoch_images),
    }  # fmt: skip
    if part:
        typer.echo(json.dumps(parts[part]()))
        return
    make(place, classes, images)

    def apart(name: str, cache: Path) -> Any:
        sys.stderr.write(f"{name} ...\n")
        words = [sys.executable, __file__, *sys.argv[1:], "--part", name]
        done = subprocess.run(words, env={**os.environ, "KDBENCH_CACHE": str(cache)}, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(done.stderr)
        return json.loads(done.stdout.splitlines()[-1])

    with tempfile.TemporaryDirectory() as folder:
        found = {"cold": apart("start", Path(folder)), "warm": apart("start", Path(folder))}
        found |= {"image": apart("image", Path(folder)), "epochs": apart("epochs", Path(folder))}
    size_of = sum(path.stat().st_size for path in place.rglob("*.jpg")) / 1e6
    found |= {"images": images, "classes": classes, "size": size, "batch": batch, "epoch_images": epoch_images,
              "megabytes": size_of, "hardware": f"{processor()}, {cores()} cores"}  # fmt: skip
    typer.echo(json.dumps(found, indent=1))
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        atomic_text(out / "imagenet.json", json.dumps(found, indent=1) + "\n")
        atomic_text(out / "imagenet.md", markdown(found))


if __name__ == "__main__":
    typer.run(bench)
