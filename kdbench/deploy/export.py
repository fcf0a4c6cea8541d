"""A trained student to a folder of files that run without kdbench, each verified on the test split first."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

import kdbench
from kdbench.catalog.types import DatasetSpec
from kdbench.config import HARD, RunConfig
from kdbench.data import load, resolve_dataset
from kdbench.data.sources import class_names
from kdbench.data.task import TaskData, looks_of, network_shape
from kdbench.deploy.card import card
from kdbench.deploy.device import bytes_of
from kdbench.deploy.formats import (
    FILES,
    INT8,
    Shape,
    Shipped,
    open_file,
    timm_config,
    write_graphs,
    write_timm,
)
from kdbench.deploy.qat import distil
from kdbench.deploy.verify import AGREEMENT, Checked, Told, compare, quantize, refuse, told
from kdbench.deploy.wanted import Wanted
from kdbench.errors import BadInput, MachineFault, unknown
from kdbench.run.store import WEIGHTS, Run, run_folder
from kdbench.run.student import best_of, open_student

Say = Callable[[str], None]


def export_student(
    run: Run, place: Path, to: Path, wanted: Wanted, *, point: dict[str, Any], command: str, data_path: str | None,
    teacher: RunConfig | None, folder: Path, say: Say,
) -> dict[str, Any]:  # fmt: skip
    """Write ``to``, whole or not at all; what export.json says.

    Args:
        run: a finished confirm run of the sweep in ``folder``, whose weights are in ``place``.
        teacher: who taught it.
        point: its row of the table: ``test_acc``, ``test_acc_lo``, ``test_acc_hi``, ``n_seeds``.
        command: what makes the sweep again.
        say: told each step.

    Raises:
        BadInput: ``to`` is not empty, a format that this network does not have, or a file that fails its check.
        MachineFault: weights or data that cannot be read.
    """
    wanted.check()
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise BadInput(f"--output {to} is there and not empty: name another folder, or empty it")
    say("reading the weights and the test split")
    spec, _ = resolve_dataset(data_path or run.config.data.name, skip_corrupt=run.config.data.skip_corrupt)
    data = _data(spec, run, None)
    to.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{to.name}.", suffix=".tmp", dir=to.parent))
    try:
        again = partial(distil, run, place, teacher, wanted.qat, folder, data_path, say)
        told = _Export(run, place, aside, wanted, spec, data, data_path, again, say).write(point, command)
        aside.chmod(0o755)
        try:
            aside.replace(to)  # an empty folder gives way
        except OSError as error:
            raise BadInput(f"--output {to} was filled meanwhile ({error.strerror}): name another folder") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return told


def _data(spec: DatasetSpec, run: Run, limit: int | None) -> TaskData:
    """The run's data, shown as they are cut; ``limit``: of the training split so many, un-augmented."""
    config, recipe = run.config.data, run.config.recipe.model_copy(update={"network_size": None})
    if limit is not None:
        most = min(limit, config.limit or limit)
        if most < spec.classes:
            raise BadInput(f"calibration: {most} images are fewer than the {spec.classes} classes; give more")
        config = config.model_copy(update={"limit": most, "digest": None})
    return load(spec, config, recipe, torch.device("cpu"))


class _Export:
    """One student on its way into a folder."""

    def __init__(
        self, run: Run, place: Path, folder: Path, wanted: Wanted, spec: DatasetSpec, data: TaskData,
        data_path: str | None, again: Callable[[], torch.nn.Module], say: Say,
    ) -> None:  # fmt: skip
        self.run, self.folder, self.wanted, self.spec, self.say, self.again = run, folder, wanted, spec, say, again
        self.network = open_student(run, place, data_path).network
        self.cut, self.shown = looks_of(spec, run.config.data, run.config.recipe)
        held = network_shape(spec, run.config.data, run.config.recipe)
        self.inner = Shape(held["classes"], held["channels"], held["input_size"])
        self.outer = self.inner._replace(size=self.cut.size)
        resampled = (self.shown.size, self.shown.interpolation) if self.shown.size != self.cut.size else None
        look = (self.cut.mean, self.cut.std)
        self.plain = Shipped(self.network, resampled=resampled)
        self.shipped = Shipped(self.network, resampled=resampled, normalised=look if wanted.normalize else None,
                               softmax=wanted.softmax, half=wanted.half)  # fmt: skip
        mean, std = (np.asarray(part, np.float32).reshape(1, -1, 1, 1) for part in look)
        self.scale = (mean, std) if wanted.normalize else None
        self.test, self.val = data.test(), data.val
        names = class_names(spec)
        self.labels = list(names or (spec.labels or map(str, range(spec.classes))))

    def write(self, point: dict[str, Any], command: str) -> dict[str, Any]:
        wanted, config, result = self.wanted, self.run.config, self.run.result
        self.say(f"the network itself on {len(self.test):,} test images")
        reference = told(_eager(self.plain), self.test)
        as_trained = not (wanted.normalize or wanted.softmax or wanted.half)
        shipped = reference if as_trained else told(_eager(self.shipped), self.test, self.scale)
        self._texts()
        files: list[dict[str, Any]] = []
        if "timm" in wanted.formats:
            write_timm(self.folder, self.network, self._timm())
            files.append(self._checked("timm", FILES["timm"], reference, AGREEMENT, None, None))
        if graphs := tuple(name for name in wanted.formats if name != "timm"):
            self.say(f"tracing for {', '.join(graphs)}: half a minute or so")
            write_graphs(self.folder, self.shipped, self.outer, graphs, self._metadata())
            for name in graphs:
                files.append(self._checked(name, FILES[name], shipped, AGREEMENT, None, self.scale))
        if wanted.int8:
            files.append(self._int8(shipped))
        held: dict[str, Any] = {
            "student": config.model, "run": config.id, "method": config.condition, "hyper": config.hyper,
            "teacher": config.teacher, "dataset": config.data.name, "classes": self.inner.classes,
            "params": result.params, "macs": result.macs, "test_acc": result.test_acc, "val_acc": result.val_acc,
            "seed": config.seed, "over_seeds": point, "reference_top1": float(reference.right.mean()),
            "half": wanted.half, "normalize": wanted.normalize, "softmax": wanted.softmax, "files": files,
            "kdbench": kdbench.__version__, "torch": torch.__version__, "made_by": command,
        }  # fmt: skip
        (self.folder / "export.json").write_text(json.dumps(held, indent=1) + "\n", encoding="utf-8")
        text = card(held, self.spec, self.labels, self._preprocess())
        (self.folder / "README.md").write_text(text, encoding="utf-8")
        return held

    def _int8(self, shipped: Told) -> dict[str, Any]:
        """The int8 file's row: as it was trained, or trained on for it, then beside what it was without."""
        wanted, whole = self.wanted, self.folder / FILES["onnx"]
        images = _data(self.spec, self.run, wanted.calibration).train
        val = told(_eager(self.shipped), self.val, self.scale)

        def quantized(model: Path, most: float | None) -> dict[str, Any]:
            self.say(f"int8: activations of {len(images):,} training images")
            quantize(model, self.folder / INT8, images, self.scale)
            row = self._checked("int8", INT8, shipped, None, most, self.scale)
            lost = compare(val, told(open_file(self.folder / INT8), self.val, self.scale)).drop
            return row | {"val_drop": lost.mean}  # what a choice may look at

        about = {"calibration": {"images": len(images), "seed": self.run.config.data.split_seed}}
        before = quantized(whole, None if wanted.qat else wanted.max_drop)
        if not wanted.qat:
            return before | about
        self.say(f"{wanted.qat} epochs more, in 8 bits")
        self.shipped.network = self.again()
        with tempfile.TemporaryDirectory(prefix="kdbench-") as work:
            write_graphs(Path(work), self.shipped, self.outer, ("onnx",), self._metadata())
            row = quantized(Path(work) / FILES["onnx"], wanted.max_drop)
        kept = ("top1", "drop", "drop_lo", "drop_hi", "val_drop")
        return row | about | {"qat": {"epochs": wanted.qat, "without": {name: before[name] for name in kept}}}

    def _checked(
        self, name: str, file: str, network: Told, least: float | None, most: float | None, scale: Any
    ) -> dict[str, Any]:
        """A file's row of export.json, after its check."""
        self.say(f"{file} on the test split")
        path = self.folder / file
        run = open_file(path)
        if name == "timm" and self.plain.resampled is not None:
            run = _eager(Shipped(_module(run), resampled=self.plain.resampled))
        found: Checked = compare(network, told(run, self.test, scale))
        refuse(file, found, least, most)
        return {
            "format": name, "file": file, "bytes": bytes_of(path), "top1": found.top1, "agreement": found.agreement,
            "max_difference": found.max_difference, "drop": found.drop.mean, "drop_lo": found.drop.lo,
            "drop_hi": found.drop.hi, "drop_p": found.drop.p,
        }  # fmt: skip

    def _preprocess(self) -> dict[str, Any]:
        """How an image reaches the files, in words that need no kdbench."""
        recipe = self.run.config.recipe
        given = {"network_size": self.shown.size, "network_interpolation": self.shown.interpolation}
        return {
            "channels": self.outer.channels, "size": self.cut.size, "fit": self.spec.fit,
            "crop": recipe.test_crop or (0.875 if self.cut.size >= 160 else 1.0), "interpolation": "bilinear",
            "mean": list(self.cut.mean), "std": list(self.cut.std), "in_graph": self.wanted.normalize,
            **(given if self.plain.resampled else {}),
        }  # fmt: skip

    def _texts(self) -> None:
        (self.folder / "labels.txt").write_text("".join(f"{name}\n" for name in self.labels), encoding="utf-8")
        text = json.dumps(self._preprocess(), indent=1) + "\n"
        (self.folder / "preprocess.json").write_text(text, encoding="utf-8")

    def _timm(self) -> dict[str, Any]:
        recipe, size = self.run.config.recipe, self.inner.size
        config = timm_config(self.run.config.model, self.network, self.inner, recipe.stem, recipe.model_options)
        config["pretrained_cfg"] = {
            "num_classes": self.inner.classes, "input_size": [self.inner.channels, size, size], "crop_mode": "center",
            "crop_pct": self._preprocess()["crop"], "interpolation": "bilinear", "mean": list(self.cut.mean),
            "std": list(self.cut.std), "license": self.spec.license or None,
        }  # fmt: skip
        return config | {"label_names": self.labels}

    def _metadata(self) -> dict[str, str]:
        """What travels inside a graph."""
        wanted, config = self.wanted, self.run.config
        return {
            "classes": json.dumps(self.labels), "preprocess": json.dumps(self._preprocess()),
            "input_range": "[0, 1]" if wanted.normalize else "(pixels / 255 - mean) / std",
            "output": "probabilities" if wanted.softmax else "logits", "student": config.model, "run_id": config.id,
            "dataset": config.data.name, "license": self.spec.license, "kdbench_version": kdbench.__version__,
        }  # fmt: skip


def _eager(network: torch.nn.Module) -> Callable[[Any], Any]:
    """A network as a file is called."""

    def run(x: Any) -> Any:
        with torch.inference_mode():
            return network(torch.from_numpy(np.ascontiguousarray(x))).numpy()

    return run


def _module(run: Callable[[Any], Any]) -> torch.nn.Module:
    """Such a call as a network again."""
    module = torch.nn.Module()
    module.forward = lambda x: torch.from_numpy(run(x.numpy()))
    return module


def _hub_name(to: str) -> str:
    kind, _, name = to.partition(":")
    if kind != "hf" or name.count("/") != 1 or not all(name.split("/")):
        raise BadInput(f"--push '{to}': write hf:user/name")
    return name


def _push(folder: Path, to: str, say: Say) -> str:
    """Upload an export to the Hugging Face hub; its address.

    Raises:
        MachineFault: no network, or no permission.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    say(f"uploading to {to}")
    try:
        api = HfApi()
        api.create_repo(_hub_name(to), exist_ok=True)
        return str(api.upload_folder(repo_id=_hub_name(to), folder_path=folder))
    except (HfHubHTTPError, OSError, ValueError) as error:
        why = next(iter(str(error).splitlines()), type(error).__name__)
        raise MachineFault(
            f"the hub did not take {folder} ({why}); log in with `hf auth login` and upload that folder"
        ) from error


def _students(runs: Sequence[Run], which: str | None, folder: Path) -> list[Run]:
    """The confirmed runs to export: the run of that id; or of a student, or of every one, the best on validation.

    Raises:
        BadInput: nobody of that name, a run that was not confirmed, or weights that are gone.
    """
    gone = f"are not in {folder}: a record keeps none, run the sweep again"
    if named := [run for run in runs if run.config.id == which]:
        if named[0].config.phase != "confirm" or named[0].result.status != "complete":
            raise BadInput(f"run {which} is of the {named[0].config.phase} phase: export one that was confirmed")
        if not (run_folder(folder, named[0].config.id) / WEIGHTS).exists():
            raise BadInput(f"the weights of run {which} {gone}")
        return named
    names = list(dict.fromkeys(run.config.model for run in runs if run.config.phase == "confirm"))
    if which is not None and which not in names:
        raise unknown(f"student or run of {folder.name}", which, names, f"confirmed: {', '.join(names) or 'none'}")
    best = [best_of(runs, name, None, folder) or best_of(runs, name, HARD, folder) for name in names
            if which in (None, name)]  # fmt: skip
    if not (found := [run for run in best if run is not None]):
        raise BadInput(f"the weights of {which or 'every student'} {gone}")
    return found


def _prefixed(name: str, say: Say) -> Say:
    return lambda text: say(f"{name}: {text}")


def export_all(
    folder: Path, runs: Sequence[Run], which: str | None, wanted: Wanted, *, points: Sequence[dict[str, Any]],
    command: str, data_path: str | None, output: Path | None, push: str | None, say: Say,
) -> list[dict[str, Any]]:  # fmt: skip
    """``kdbench.Result.export``."""
    wanted.check()
    chosen = _students(runs, which, folder)
    if push is not None:
        _hub_name(push)
        if len(chosen) > 1:
            raise BadInput(f"--push takes one student, and these are {len(chosen)}: name one as {folder.name}:STUDENT")
    done = []
    for run in chosen:
        model, condition = run.config.model, run.config.condition
        own = next((row for row in points if (row["student"], row["method"]) == (model, condition)), {})
        point = {key: own.get(key) for key in ("test_acc", "test_acc_lo", "test_acc_hi", "n_seeds")}
        place = folder / "export" / model if output is None else output / model if len(chosen) > 1 else output
        held = export_student(
            run, run_folder(folder, run.config.id), place.expanduser(), wanted, point=point, command=command,
            data_path=data_path, folder=folder, say=_prefixed(model, say),
            teacher=next((each.config for each in runs if each.config.id == run.config.teacher_id), None),
        )  # fmt: skip
        done.append({**held, "folder": str(place)})
        if push is not None:
            done[-1]["pushed"] = _push(place, push, say)
    return done
