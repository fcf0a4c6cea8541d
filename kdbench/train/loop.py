"""One training run from its config to its result, resumable after any epoch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from timm.data.mixup import mixup_target
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from kdbench.config import EpochLog, RunConfig, RunResult
from kdbench.data import Split, TaskData
from kdbench.errors import TrialFailed
from kdbench.files import identify
from kdbench.methods import LOGITS, METHODS, BatchInfo, Outputs, Taps, as_loss
from kdbench.models import count_macs, count_params, head_names
from kdbench.models.build import seeded
from kdbench.teacher import Teacher, asked, outputs, taps_of, truncate
from kdbench.teacher.logit_cache import Progress
from kdbench.train import checkpoint
from kdbench.train.beside import averaged, blank, built, second, strong_views, with_classifier_of
from kdbench.train.capture import Place, Recorded, like, recordable, tensors_of
from kdbench.train.checkpoint import Checkpoint, load_checkpoint, save_checkpoint, write_metrics
from kdbench.train.metrics import Scores, calibration_temperature, collect_logits, reliability, scaled, score
from kdbench.train.optim import TwoMomenta, hold, make_optimizer, make_schedule, max_norm_constraint
from kdbench.train.parallel import ALONE, Group
from kdbench.train.step import Step, compiled, describe_hardware, note_step, prepare


class RunOutcome(NamedTuple):
    """The result, every epoch's log, and the trained network in eval mode."""

    result: RunResult
    logs: list[EpochLog]
    model: nn.Module


def steps_per_epoch(samples: int, batch_size: int) -> int:
    """Full batches in a split; a split shorter than one batch is one step."""
    return max(samples // batch_size, 1)


class Trainer:
    """The state of one run: network, the method's own part, optimiser and schedule."""

    def __init__(
        self, config: RunConfig, data: TaskData, teacher: Teacher | None, device: torch.device, step: Step,
        start: nn.Module | None = None, group: Group = ALONE,
    ) -> None:  # fmt: skip
        self.config, self.data, self.teacher, self.device, self.group = config, data, teacher, device, group
        recipe, method = config.recipe, METHODS.get(config.method)
        # a loss that reads nothing from a teacher (the hard baseline) must not pay for one while training
        self.method = method
        if method.asks and teacher is None:
            raise ValueError(f"the method '{config.method}' needs a teacher")
        self.model = start or built(config, data, config.seed)
        if teacher is not None and "reused" in method.needs:
            with seeded(config.seed):
                self.model = with_classifier_of(teacher, method, self.model, data, device)
        group.check(recipe, len(data.train), self.model, method)
        self.ema = None if recipe.ema is None else averaged(self.model.to(device), recipe.ema)
        self.shown: nn.Module = self.model if self.ema is None else self.ema.module
        """What is measured and kept."""
        self.params = count_params(self.model)
        self.macs = count_macs(self.model, data.channels, data.input_size)
        if config.tune == "head":
            self.model.requires_grad_(False)
            for name in head_names(self.model):
                self.model.get_submodule(name).requires_grad_()
        self.held = hold(self.model, recipe.freeze) if recipe.freeze else []
        """What stays in eval mode, as it came."""
        whole = asked(self.model, method.needs)
        taps: list[Taps | None] = [None, None]
        if teacher is not None and method.looks:
            image = blank(data, device)
            found = taps_of(whole.to(device), self.model, image), teacher.taps(method.asks, image)
            shown = min(recipe.batch_size, len(data.train))
            taps = [replace(one, samples=len(data.train), batch=shown) for one in found]
        with seeded(config.seed):
            made = method.build(config.hyper, *taps)
        self.part = made.to(device) if isinstance(made, nn.Module) else nn.Module()
        """What of the method is trained and kept in checkpoints; no part of the student."""
        apart = isinstance(made, nn.Module) and "halves" not in method.needs  # those go through whole networks
        self.loss = compiled(self.part, step) if apart else made
        self.forward = prepare(whole, step, device)[1]
        self.second = second(config, method, self.model, data)
        """The network in the teacher's place, where there is one."""
        self.other = self.second and prepare(self.second, step, device)[1]
        if self.second is not None:
            self.part.add_module("second", self.second)
        delta = config.hyper["delta"] if method.momenta else None
        self.optimizer = make_optimizer(self.model, recipe, fused=step.fused, part=self.part, delta=delta)
        self._clipped = [*self.model.parameters(), *self.part.parameters()]  # finding them takes 2% of a small step
        self.constrain = max_norm_constraint(self.model, recipe.max_norm)
        self.batches = steps_per_epoch(len(data.train), recipe.batch_size)
        self.updates = -(-self.batches // recipe.accumulate)
        self.schedule = make_schedule(self.optimizer, recipe, self.updates)
        self._rows: list[Tensor] = []
        self._names: list[str] = []
        self.recorded: Recorded | None = None
        self._place = Place()
        self.rates: list[Tensor] = []
        """The learning rates of a step that is recorded: on the device, where a replay reads them."""
        if step.captured and device.type == "cuda" and recordable(config):
            for each in self.optimizer.param_groups:
                each["capturable"] = True
                self.rates.append(torch.zeros((), device=device))

    def steps(self, epoch: int, on_fill: Progress | None = None) -> Iterator[int]:
        """Train one epoch, a batch at a time; yields the number of images in each."""
        recipe, seed, data = self.config.recipe, self.config.seed, self.data.train
        teacher = self.teacher if self.method.asks else None
        guide = teacher.epoch(data, seed, epoch, self.method.asks, on_fill) if teacher is not None else None
        strengthen = strong_views(self.data, seed, epoch) if "views" in self.method.needs else None
        # dropout and stochastic depth draw from here, so an epoch is the same after an interruption
        torch.manual_seed(int(identify([seed, epoch, "noise"]), 16) % 2**63)
        self.model.train(self.config.tune == "full")
        for module in self.held:
            module.eval()
        self.part.train()
        averages = [one for one in (self.ema, self.second) if isinstance(one, ModelEmaV3)]
        for average in averages:
            average.eval()
        self._rows = []
        batches = data.batches(
            batch_size=recipe.batch_size, order_seed=seed, augment_seed=seed, epoch=epoch, portion=self.group.portion
        )
        for number, batch in enumerate(batches):
            update, done = divmod(number, recipe.accumulate)
            together = min(recipe.accumulate, self.batches - number + done)
            if done == 0:
                self._rate((epoch - 1) * self.updates + update)
                self.optimizer.zero_grad(set_to_none=True)
            taught = None if guide is None else guide(batch)
            y, rows, mixed = self.group.gather(batch.y), self.group.gather(batch.rows), None
            if batch.share < 1:
                mixed = mixup_target(y, self.data.classes, batch.share)
                y, rows = (y, rows) if batch.share >= 0.5 else (y.flip(0), rows.flip(0))
            place = Place(
                epoch, recipe.epochs, recipe.label_smoothing, rows, len(data), mixed, recipe.bce,
                recipe.bce_threshold,
            )  # fmt: skip
            strong = None if strengthen is None else strengthen(batch)
            if teacher is not None and taught is not None and strong is not None:
                taught = replace(taught, other=teacher.ask(LOGITS, strong).logits)
            if self.rates and not (self.recorded and self.recorded.fault):
                row = self._replay(batch.x, y, taught, place)
            else:
                row = self._learn(batch.x, y, taught, place, together, strong)
                if done + 1 == together:
                    self._update()
            for average in averages if done + 1 == together else ():
                average.update(self.model, step=(epoch - 1) * self.updates + update + 1)
            self._rows.append(row)
            yield len(batch.y)

    def _rate(self, number: int) -> None:
        """Set the learning rate of an update."""
        self.schedule.step_update(number)
        for group, held in zip(self.optimizer.param_groups, self.rates, strict=bool(self.rates)):
            group["lr"] = held.fill_(group["lr"])

    def _learn(
        self, x: Tensor, y: Tensor, taught: Outputs | None, place: BatchInfo, together: int = 1,
        strong: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """Gradients of a batch; its loss, accuracy and the loss's parts, (2 + parts,)."""
        recipe = self.config.recipe
        precision = torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=recipe.precision == "bf16")
        with precision, self.group.normalising():
            said, other = self.forward(x), None if self.other is None else self.other(x)
            again = None if strong is None else self.forward(strong)
        student, taught = self.group.outputs(outputs(said)), taught and self.group.outputs(taught)
        if again is not None:
            student = replace(student, other=outputs(again).logits)
        if taught is not None and recipe.teacher_top_k is not None:  # whatever the cache holds
            strongly = taught.other if taught.other is None else truncate(taught.other, recipe.teacher_top_k)
            taught = replace(taught, logits=truncate(taught.logits, recipe.teacher_top_k), other=strongly)
        if other is not None:
            taught = outputs(other)
        loss = as_loss(self.loss(student, taught, y, place))
        if isinstance(self.optimizer, TwoMomenta):
            self.optimizer.learn(loss.parts["task"], loss.total - loss.parts["task"])
        else:
            (loss.total / together).backward()
        self._names = ["loss", "acc", *loss.parts]
        # kept on the device until the epoch ends: reading a value now would stall a GPU every step
        accuracy = (student.logits.detach().argmax(1) == y).float().mean()
        return torch.stack([loss.total.detach(), accuracy, *(p.detach() for p in loss.parts.values())])

    def _replay(self, x: Tensor, y: Tensor, taught: Outputs | None, place: Place) -> Tensor:
        """``_learn`` and ``_update`` by a graph: of the run, or of the epoch where the loss changes with that."""
        if self.recorded is None or (self._place.timely and self._place.epoch != place.epoch):
            self._place = place

            def whole(x: Tensor, y: Tensor, rows: Tensor, *said: Tensor) -> Tensor:
                object.__setattr__(place, "rows", rows)
                self.optimizer.zero_grad(set_to_none=True)
                row = self._learn(x, y, like(taught, said), place)
                self._update()
                return row

            self.recorded = Recorded(whole)
        assert place.rows is not None
        return self.recorded(x, y, place.rows, *tensors_of(taught))

    def _update(self) -> None:
        recipe = self.config.recipe
        self.group.sum_gradients(self.model.parameters())
        if recipe.clip_grad is not None and not isinstance(self.optimizer, TwoMomenta):
            nn.utils.clip_grad_norm_(self._clipped, recipe.clip_grad)
        self.optimizer.step()
        self.constrain()

    def train(self, epoch: int, on_fill: Progress | None = None) -> dict[str, float]:
        """Train one epoch; means of its loss, accuracy and the loss's parts.

        Raises:
            TrialFailed: on a loss that is not finite.
        """
        for _ in self.steps(epoch, on_fill):
            pass
        table = torch.stack(self._rows).double().cpu()
        bad = (~torch.isfinite(table)).any(dim=1).nonzero()
        if len(bad):
            step = int(bad[0])
            values = ", ".join(f"{n}={v:.4g}" for n, v in zip(self._names, table[step].tolist(), strict=True))
            raise TrialFailed(f"non-finite loss in epoch {epoch}, step {step + 1} of {len(table)}: {values}")
        return dict(zip(self._names, table.mean(dim=0).tolist(), strict=True))

    def epoch(self, epoch: int, on_fill: Progress | None) -> EpochLog:
        """Train one epoch and measure the validation split.

        Raises:
            TrialFailed: on a loss that is not finite.
        """
        since = time.perf_counter()
        means = self.train(epoch, on_fill)
        val, *_ = self.measure(self.data.val)
        if not math.isfinite(val.nll):  # the last step may break a network whose training loss was still finite
            raise TrialFailed(f"non-finite validation loss after epoch {epoch}: nll={val.nll}, loss={means['loss']}")
        rate = max(float(group["lr"]) for group in self.optimizer.param_groups)
        return EpochLog(
            epoch=epoch, lr=rate, train_loss=means.pop("loss"), train_acc=means.pop("acc"),
            val_loss=val.nll, val_acc=val.acc, val_kl=val.kl, val_agreement=val.agreement,
            seconds=time.perf_counter() - since, parts=means,
        )  # fmt: skip

    def measure(self, split: Split) -> tuple[Scores, Tensor, Tensor]:
        """The network on a split: its scores, beside the teacher's where there is one; its logits and the labels."""
        logits, labels = collect_logits(self.shown, split)
        return score(logits, labels, self.teacher.plain(split) if self.teacher is not None else None), logits, labels

    def result(self, logs: list[EpochLog], attempts: int, pruned: bool) -> RunResult:
        """Final measures: on test in the confirm phase, on validation otherwise."""
        confirm = self.config.phase == "confirm"
        final, logits, labels = self.measure(self.data.test() if confirm else self.data.val)
        on_test: dict[str, Any] = {}
        if confirm:
            on_test = {"test_acc": final.acc, "test_top5": final.top5, "reliability": reliability(logits, labels)}
            if self.config.data.validate_on == "train":  # never fitted on the test split
                on_test |= scaled(logits, labels, calibration_temperature(*collect_logits(self.shown, self.data.val)))
        return RunResult(
            id=self.config.id, status="pruned" if pruned else "complete", val_acc=logs[-1].val_acc,
            best_val_acc=max(log.val_acc for log in logs), nll=final.nll, ece=final.ece, agreement=final.agreement,
            params=self.params, macs=self.macs, epochs=len(logs), seconds=sum(log.seconds for log in logs),
            attempts=attempts, hardware=describe_hardware(self.device), **on_test,
        )  # fmt: skip


def _begun(
    config: RunConfig, data: TaskData, teacher: Teacher | None, workdir: Path, device: torch.device, step: Step | None,
    start: nn.Module | None, group: Group,
) -> tuple[Trainer, Step, Checkpoint]:  # fmt: skip
    """A run where its checkpoint left it, and that; an empty one where there is none."""
    saved = load_checkpoint(workdir, device)
    if saved and saved.run != config.id:  # another's, or an earlier release's: start over
        saved = None
    step = group.step(Step(**saved.step) if saved and saved.step else step or Step())
    trainer = Trainer(config, data, teacher, device, step, start, group)
    if saved is None:
        return trainer, step, Checkpoint({}, {}, [], 0)
    trainer.model.load_state_dict(saved.model)
    trainer.part.load_state_dict(saved.method)
    if trainer.ema is not None:
        trainer.ema.module.load_state_dict(saved.ema)
    trainer.optimizer.load_state_dict(saved.optimizer)
    return trainer, step, saved


def follow_training(
    config: RunConfig, *, data: TaskData, teacher: Teacher | None, workdir: Path, device: torch.device, group: Group,
    step: Step | None = None, start: nn.Module | None = None,
) -> None:  # fmt: skip
    """``run_training`` in the other processes of a group: the same steps, and nothing measured or written."""
    trainer, _, saved = _begun(config, data, teacher, workdir, device, step, start, group)
    epoch, pruned = len(saved.logs), group.agreed(False)
    while not pruned and epoch < config.recipe.last_epoch:
        epoch += 1
        trainer.train(epoch)
        pruned = group.agreed(False)


def run_training(
    config: RunConfig, *, data: TaskData, teacher: Teacher | None, workdir: Path, device: torch.device,
    on_epoch: Callable[[EpochLog, bool], bool] | None = None, on_fill: Progress | None = None, step: Step | None = None,
    start: nn.Module | None = None, group: Group = ALONE,
) -> RunOutcome:  # fmt: skip
    """Train ``config`` to its end, from ``workdir``'s checkpoint where there is one.

    ``on_epoch(log, replayed)`` returns True to prune the run there; ``replayed`` epochs are those that an earlier
    attempt finished. ``start``: the network to begin with, where ``config.start`` names its weights. ``step`` says how
    it is computed (only rounding depends on it); a resumed run keeps its own. A checkpoint is written after an epoch
    when the last one is ``checkpoint.INTERVAL`` seconds old. The test split is
    opened only when ``config.phase`` is ``confirm``, once, after the last epoch. The same config gives the same numbers
    however often it was interrupted (bit for bit on a CPU with the same number of threads). In a ``group`` this is the
    first process; the others are in ``follow_training``.

    Raises:
        TrialFailed: on a non-finite loss, naming epoch, step and values.
    """
    tell = on_epoch or (lambda log, replayed: False)
    trainer, step, saved = _begun(config, data, teacher, workdir, device, step, start, group)
    note_step(workdir, step, device)
    logs, attempts, pruned = list(saved.logs), saved.attempts + 1, False
    if logs:
        write_metrics(workdir, logs)  # a kill may have come between the last checkpoint and its line
        for log in logs:
            pruned = tell(log, True)
    saved_at, pruned = time.perf_counter(), group.agreed(pruned)
    while not pruned and len(logs) < config.recipe.last_epoch:
        logs.append(trainer.epoch(len(logs) + 1, on_fill))
        if time.perf_counter() - saved_at >= checkpoint.INTERVAL:
            model, optimizer, part = (x.state_dict() for x in (trainer.model, trainer.optimizer, trainer.part))
            ema, form = trainer.ema.module.state_dict() if trainer.ema is not None else {}, step.model_dump()
            save_checkpoint(workdir, Checkpoint(model, optimizer, logs, attempts, part, form, ema, config.id))
            saved_at = time.perf_counter()
        write_metrics(workdir, logs)
        pruned = group.agreed(tell(logs[-1], False))
    trainer.recorded = None  # the graph's memory, which measuring and the next run need
    finished = len(logs) == config.recipe.last_epoch  # a prune after the last epoch has nothing left to save
    return RunOutcome(trainer.result(logs, attempts, pruned and not finished), logs, trainer.shown.eval())
