"""What every trial of a sweep shares in one process: the data, the teacher, the bank. Kept warm between trials."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import torch
from filelock import FileLock
from safetensors.torch import load_file, save
from torch import nn

from kdbench.config import EpochLog, Recipe, RunConfig
from kdbench.data import ResidentSplit, TaskData, load, resolve_dataset
from kdbench.errors import BadInput, MachineFault
from kdbench.models import Ensemble, build, count_macs, count_params, load_weights, members, weights_digest
from kdbench.sweep.plan import lanes, slots, teacher_config
from kdbench.sweep.types import Sweep
from kdbench.teacher import BankedTeacher, TeacherCard, TeacherSignal, gate, load_card, make_signal, save_card
from kdbench.teacher.signal import LazyTeacher
from kdbench.train import Hooks, RunOutcome, Shape, Step, choose_step, run_training, score, share_batches, training
from kdbench.train.checkpoint import drop_checkpoint
from kdbench.train.hardware import describe_hardware
from kdbench.train.loop import steps_per_epoch
from kdbench.train.metrics import collect_logits
from kdbench.train.pack import Turns
from kdbench.train.step import answering, usual_step


def pick_device(name: str) -> torch.device:
    """``auto`` is CUDA where there is one, else the CPU.

    Raises:
        BadInput: a device that torch does not know or that is not here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise BadInput(f"--device '{name}' cannot be used here: {str(error).splitlines()[0]}") from error
    return device


class Context:
    """One sweep in one process."""

    def __init__(self, sweep: Sweep, *, cache: Path, device: torch.device, teacher_weights: str | None = None) -> None:
        self.sweep, self.cache, self.device = sweep, cache, device
        self.teacher_weights = teacher_weights
        self.teacher_config = teacher_config(sweep)

    @cached_property
    def data(self) -> TaskData:
        """The students' view of the data."""
        data = self._load(self.sweep.recipe)
        share_batches(data.train)
        return data

    def _load(self, recipe: Recipe) -> TaskData:
        spec, digest = resolve_dataset(self.sweep.data_path or self.sweep.data.name)
        if digest != self.sweep.data.digest:
            raise BadInput(f"the data of '{self.sweep.data.name}' changed since this sweep began; use another --name")
        return load(spec, self.sweep.data, recipe, self.device)

    @property
    def teacher_folder(self) -> Path:
        """``<cache>/teachers/<id>``."""
        return self.cache / "teachers" / self.teacher_config.id

    @cached_property
    def teacher(self) -> TeacherSignal:
        """Banked by view or by epoch, or live: see ``make_signal``."""
        network = LazyTeacher(self.teacher_network, self.device)
        folder, known_as = self.teacher_folder / "bank", self.teacher_config.id
        kept = self.sweep.recipe.teacher_top_k
        return make_signal(folder, known_as, self.data.classes, network, self.data.train, self.passes, kept)

    @property
    def passes(self) -> int:
        """Epochs of distinct views that the sweep's runs see: the teacher's passes over the data are at most these."""
        planned = self.sweep.recipe.epochs * (1 + self.sweep.budget.seeds)
        return planned if self.data.train.n_views is None else min(planned, self.data.train.n_views)

    def teacher_network(self) -> nn.Module:
        """The prepared teacher's network with its weights."""
        model = self._empty_teacher()
        try:
            model.load_state_dict(load_file(self.teacher_folder / "model.safetensors"))
        except (OSError, RuntimeError) as error:
            raise MachineFault(
                f"the teacher's weights in {self.teacher_folder} cannot be read ({str(error).splitlines()[0]}); "
                "delete that folder to prepare it again"
            ) from error
        return answering(model, self.device)

    def _empty_teacher(self) -> nn.Module:
        several = [
            build(
                self.sweep.pair.teacher,
                classes=self.data.classes,
                channels=self.data.channels,
                input_size=self.data.input_size,
                stem=self.sweep.teacher_recipe.stem,
                seed=0,  # it may be built in the middle of an epoch, whose random numbers it must not draw
            )
            for _ in members(self.sweep.teacher_weights or "")
        ]
        return several[0] if len(several) == 1 else Ensemble(several)

    def prepare_teacher(self, hooks: Hooks) -> tuple[TeacherCard, list[EpochLog]]:
        """Load the teacher's card, or train or import the teacher first; refuse one below its floor.

        A lock lets one process prepare it while others wait; a killed training goes on from its checkpoint.

        Raises:
            KdbenchError: a teacher below its floor.
        """
        folder = self.teacher_folder
        folder.mkdir(parents=True, exist_ok=True)
        logs: list[EpochLog] = []
        with FileLock(folder / ".lock"):
            card = load_card(folder)
            if card is None:
                card, logs = self._import_teacher() if self.sweep.teacher_weights else self._train_teacher(hooks)
                save_card(folder, card)
                drop_checkpoint(folder)
        gate(card, self.sweep.teacher_floor)
        return card, logs

    def card(self) -> TeacherCard:
        """The prepared teacher's card.

        Raises:
            KdbenchError: a teacher below its floor.
            MachineFault: none is in this machine's cache.
        """
        card = load_card(self.teacher_folder)
        if card is None:
            raise MachineFault(
                f"the teacher of this sweep is not in the cache ({self.teacher_folder}): point KDBENCH_CACHE "
                "at the cache of the machine that prepared it"
            )
        gate(card, self.sweep.teacher_floor)
        return card

    def _train_teacher(self, hooks: Hooks) -> tuple[TeacherCard, list[EpochLog]]:
        config = self.teacher_config
        data = self._load(config.recipe)
        outcome: RunOutcome = run_training(
            config, data=data, teacher=None, workdir=self.teacher_folder, device=self.device, hooks=hooks,
            step=usual_step(self.device),
        )  # fmt: skip
        save_weights(outcome.model, self.teacher_folder / "model.safetensors")
        r = outcome.result
        card = TeacherCard(
            id=config.id, model=config.model, source="trained", val_acc=r.val_acc or 0.0, nll=r.nll or 0.0,
            ece=r.ece or 0.0, params=r.params, macs=r.macs, config=config.model_dump(mode="json"),
            seconds=r.seconds, hardware=r.hardware,
        )  # fmt: skip
        return card, outcome.logs

    def given_teacher(self) -> nn.Module:
        """The network with the weights that the user named, on the device.

        Raises:
            BadInput: weights that do not fit. MachineFault: weights that cannot be had.
        """
        named = self.sweep.teacher_weights or ""
        published = all(part.startswith("pretrained") for part in members(named))
        source = self.teacher_weights or (named if published else None)
        if source is None or weights_digest(source, self.sweep.pair.teacher) != named:
            raise MachineFault(
                f"the teacher's weights ({named}) are not in this machine's cache: run `kdbench sweep` with "
                "--teacher-weights here first, or share the cache"
            )
        return load_weights(
            self.sweep.pair.teacher,
            classes=self.data.classes,
            channels=self.data.channels,
            input_size=self.data.input_size,
            stem=self.sweep.teacher_recipe.stem,
            source=source,
        ).to(self.device)

    def _import_teacher(self) -> tuple[TeacherCard, list[EpochLog]]:
        config, data = self.teacher_config, self.data
        model = self.given_teacher()
        logits, labels = collect_logits(model.eval(), data.val)
        s = score(logits, labels)
        save_weights(model, self.teacher_folder / "model.safetensors")
        return TeacherCard(
            id=config.id, model=config.model, source=self.sweep.teacher_weights or "", val_acc=s.acc, nll=s.nll,
            ece=s.ece, params=count_params(model), macs=count_macs(model, data.channels, data.input_size),
            config=config.model_dump(mode="json"), hardware=describe_hardware(self.device),
        ), []  # fmt: skip

    def fill_bank(self, progress: Callable[[str, int, int], None]) -> int:
        """The teacher's passes for every view that the sweep's planned runs will see; entries computed."""
        if not isinstance(self.teacher, BankedTeacher) or not isinstance(self.data.train, ResidentSplit):
            return 0
        computed = 0
        seeds = (self.sweep.search_seed, *self.sweep.confirm_seeds)
        epochs = self.sweep.recipe.epochs
        for k, (seed, epoch) in enumerate((s, e) for s in seeds for e in range(1, epochs + 1)):
            computed += self.teacher.fill(self.data.train, seed, epoch)
            progress("teacher bank, epochs", k + 1, len(seeds) * epochs)
        return computed

    def test_teacher(self) -> tuple[float, float, float, float | None]:
        """The teacher's (accuracy, NLL, ECE, top-5) on the test split: called in the confirm phase alone."""
        split = self.data.test()
        s = score(self.teacher.plain(split), split.labels)
        return s.acc, s.nll, s.ece, s.top5

    def training(self, config: RunConfig, workdir: Path, hooks: Hooks) -> Turns[RunOutcome]:
        """Train one student, a step at a time."""
        return training(
            config, data=self.data, teacher=self.teacher, workdir=workdir, device=self.device, hooks=hooks,
            step=self.step(config.model, config.recipe),
        )  # fmt: skip

    def step(self, model: str, recipe: Recipe) -> Step:
        """How a student's steps are computed here: measured where the sweep trains it long enough to pay for that."""
        data = self.data
        runs = sum(slots(self.sweep, lane) for lane in lanes(self.sweep) if lane.model == model)
        sharing = max(1, (os.cpu_count() or 1) // torch.get_num_threads()) if self.device.type == "cpu" else 1
        steps = runs * recipe.epochs * steps_per_epoch(len(data.train), recipe.batch_size) // sharing
        shape = Shape(model, data.classes, data.channels, data.input_size, recipe.stem, recipe.batch_size, self.device)
        return choose_step(shape, precision=recipe.precision, steps=steps, cache=self.cache)


def save_weights(model: nn.Module, path: Path) -> None:
    """A network's state as safetensors, whole or not at all."""
    from kdbench.files import atomic

    state = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    data = save(state)
    atomic(path, lambda aside: aside.write_bytes(data))
