"""The forms of a training step: equal to rounding, chosen once, kept by a resumed run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from kdbench.config import DataConfig, Recipe, RunConfig
from kdbench.data import load, resolve_dataset
from kdbench.models import build
from kdbench.train import RunOutcome, Shape, Step, choose_step, run_training
from kdbench.train import autotune as tune
from kdbench.train.optim import make_optimizer
from kdbench.train.step import MANIFEST, REFERENCE, draws_noise, prepare

CPU = torch.device("cpu")
DATA = DataConfig(name="digits", limit=200)
RECIPE = Recipe(epochs=2, batch_size=64, lr=0.02, pad=1, warmup_epochs=0, precision="fp32")
CONFIG = RunConfig(data=DATA, model="test_efficientnet", method="hard", recipe=RECIPE, seed=3, phase="search")
SHAPE = Shape("test_resnet", 10, 1, 16, "native", 32, CPU)


def trained(folder: Path, step: Step | None, on_epoch=None) -> RunOutcome:
    torch.set_num_threads(1)
    data = load(resolve_dataset("digits")[0], DATA, RECIPE, CPU)
    folder.mkdir(exist_ok=True)
    return run_training(CONFIG, data=data, teacher=None, workdir=folder, device=CPU, on_epoch=on_epoch, step=step)


@pytest.mark.parametrize("step", [
    pytest.param(Step(), id="kernels"), pytest.param(Step(kernels=False), id="channels-last"),
    pytest.param(Step(compiled=True), id="compiled", marks=pytest.mark.slow),  # test_outputs.py traces it
    pytest.param(REFERENCE.model_copy(update={"fused": True}), id="fused"),
])  # fmt: skip
def test_every_form_trains_along_the_reference_s_curve(tmp_path: Path, step: Step) -> None:
    """Six steps: rounding differs from the first on and has little time to grow; a wrong gradient shows at once."""
    want, got = trained(tmp_path / "a", REFERENCE), trained(tmp_path / "b", step)
    for one, other in zip(want.logs, got.logs, strict=True):
        assert other.train_loss == pytest.approx(one.train_loss, rel=2e-4)
        assert other.val_loss == pytest.approx(one.val_loss, rel=2e-3)
    assert json.loads((tmp_path / "b" / MANIFEST).read_text())["step"] == step.model_dump()


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_the_fused_update_is_the_plain_one(name: str) -> None:
    recipe = RECIPE.model_copy(update={"optimizer": name, "weight_decay": 0.1})
    nets = [build("test_resnet", classes=10, channels=1, input_size=8, seed=0) for _ in range(2)]
    makers = [make_optimizer(net, recipe, fused=fused) for net, fused in zip(nets, (False, True), strict=True)]
    for _ in range(3):
        for net, optimizer in zip(nets, makers, strict=True):
            for p in net.parameters():
                p.grad = p.detach().cos()
            optimizer.step()
    for a, b in zip(*(net.parameters() for net in nets), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)
    assert makers[1].param_groups[0]["fused"] and not makers[0].param_groups[0]["fused"]


def test_a_resumed_run_keeps_the_step_that_it_began_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kdbench.train.checkpoint.INTERVAL", 0)

    class Killed(Exception):
        pass

    def die(log: object, replayed: bool) -> bool:
        raise Killed

    with pytest.raises(Killed):
        trained(tmp_path, REFERENCE, die)
    trained(tmp_path, Step(kernels=False))
    assert json.loads((tmp_path / MANIFEST).read_text())["step"] == REFERENCE.model_dump()


@pytest.mark.parametrize(
    ("compiled", "steps", "chosen"),
    [
        (0.1, 1000, Step()),  # too short to pay for compiling
        (0.8, 9000, Step(compiled=True)),
        (0.99, 9000, Step()),
        (None, 9000, Step()),  # no compiler here
    ],
)
def test_a_step_is_compiled_where_that_pays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compiled: float | None, steps: int, chosen: Step
) -> None:
    def measured(shape: Shape, *ways: Step, precision: str, repeats: int = 3) -> list[float]:
        if compiled is None and len(ways) == 2:
            raise RuntimeError("no compiler")
        return [compiled or 0.0 if step.compiled else 1.0 for step in ways]

    monkeypatch.setattr(tune, "seconds_per_step", measured)
    assert choose_step(SHAPE, precision="fp32", steps=steps, cache=tmp_path) == chosen
    monkeypatch.setattr(tune, "seconds_per_step", None)  # measured once: never asked again
    assert choose_step(SHAPE, precision="fp32", steps=steps, cache=tmp_path) == chosen
    assert choose_step(SHAPE, precision="fp32", steps=steps, cache=tmp_path, exact=True) == REFERENCE
    dropping = SHAPE._replace(name="hinton_mlp_30", input_size=28)
    monkeypatch.setattr(tune, "seconds_per_step", measured)
    monkeypatch.setattr(tune, "MULTIPLIES_BF16", False)  # the compiler would not round
    assert not choose_step(SHAPE, precision="bf16", steps=10**6, cache=tmp_path).compiled
    many, noise = 10**6, {"drop_rate": 0.5}  # the compiler draws noise of its own: it would be another run
    assert not choose_step(dropping, precision="fp32", steps=many, cache=tmp_path, options=noise).compiled


def test_a_real_measurement_is_noted_for_this_machine(tmp_path: Path) -> None:
    (tmp_path / "tune.json").write_text("damaged")
    assert choose_step(SHAPE, precision="fp32", steps=1, cache=tmp_path) == Step()
    (noted,) = json.loads((tmp_path / "tune.json").read_text()).values()
    assert 0 < noted < 60


def test_precision_is_a_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    assert tune.precision_for(torch.device("cpu")) == "fp32"
    for capability, expected in (((7, 5), "fp32"), ((8, 0), "bf16"), ((9, 0), "bf16")):
        monkeypatch.setattr("torch.cuda.get_device_capability", lambda device, found=capability: found)
        assert tune.precision_for(torch.device("cuda")) == expected


def test_noise_and_the_compiler_never_meet() -> None:
    noisy, still = torch.nn.Sequential(torch.nn.Dropout(0.1)), torch.nn.Dropout(0.0)
    assert draws_noise(noisy) and not draws_noise(still)
    assert (
        prepare(noisy, Step(compiled=True), CPU)[1] is noisy
        and prepare(still, Step(compiled=True), CPU)[1] is not still
    )


def test_a_heap_that_is_kept_is_not_faulted_in_again_every_step() -> None:
    code = """if 1:
        from resource import RUSAGE_SELF, getrusage
        from kdbench.host import keep_heap
        def faults(steps):
            before = getrusage(RUSAGE_SELF).ru_minflt
            for _ in range(steps):
                blocks = [bytes(size << 20) for size in (1, 8, 24)]
                del blocks
            return getrusage(RUSAGE_SELF).ru_minflt - before
        keep_heap()
        faults(2)
        print(faults(20))"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 100, "33 MiB a step are 8,448 pages"
