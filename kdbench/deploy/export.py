"""A trained student to a folder of files that run without kdbench, each verified on the test split first."""

from __future__ import annotations

import importlib.util
import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import kdbench
from kdbench.catalog.types import DatasetSpec
from kdbench.config import HARD
from kdbench.data import load, resolve_dataset
from kdbench.data.sources import class_names
from kdbench.data.task import TaskData, looks_of, network_shape
from kdbench.deploy.card import card
from kdbench.deploy.formats import (
    FILES,
    INT8,
    NEEDS,
    Shape,
    Shipped,
    open_file,
    timm_config,
    write_graphs,
    write_timm,
)
from kdbench.deploy.verify import AGREEMENT, Checked, Told, compare, quantize, refuse, told
from kdbench.errors import BadInput, MachineFault, unknown
from kdbench.run.store import WEIGHTS, Run, run_folder
from kdbench.run.student import best_of, open_student

Say = Callable[[str], None]


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
                extra = "openvino,export" if name == "openvino" else "export"
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
        if self.calibration < 20:
            raise BadInput(f"calibration: activations of {self.calibration} images say little; give 20 or more")


def export_student(
    run: Run, place: Path, to: Path, wanted: Wanted, *, point: dict[str, Any], command: str, data_path: str | None,
    say: Say,
) -> dict[str, Any]:  # fmt: skip
    """Write ``to``, whole or not at all; what export.json says.

    Args:
        run: a finished confirm run, whose weights are in ``place``.
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
        told = _Export(run, place, aside, wanted, spec, data, data_path, say).write(point, command)
        aside.chmod(0o755)
        if to.exists():
            to.rmdir()
        aside.replace(to)
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
        data_path: str | None, say: Say,
    ) -> None:  # fmt: skip
        self.run, self.folder, self.wanted, self.spec, self.say = run, folder, wanted, spec, say
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
        shipped = told(_eager(self.shipped), self.test, self.scale) if self.shipped is not self.plain else reference
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
            images = _data(self.spec, self.run, wanted.calibration).train
            self.say(f"int8: activations of {len(images):,} training images")
            quantize(self.folder / FILES["onnx"], self.folder / INT8, images, self.scale)
            done = self._checked("int8", INT8, shipped, None, wanted.max_drop, self.scale)
            pair = (told(each, self.val, self.scale) for each in (_eager(self.shipped), open_file(self.folder / INT8)))
            done |= {"val_drop": compare(*pair).drop.mean}  # what a choice may look at
            files.append(done | {"calibration": {"images": len(images), "seed": config.data.split_seed}})
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
        size = path.stat().st_size + sum(each.stat().st_size for each in self.folder.glob(f"{path.stem}.bin"))
        return {
            "format": name, "file": file, "bytes": size, "top1": found.top1, "agreement": found.agreement,
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
            data_path=data_path, say=_prefixed(model, say),
        )  # fmt: skip
        done.append({**held, "folder": str(place)})
        if push is not None:
            done[-1]["pushed"] = _push(place, push, say)
    return done
