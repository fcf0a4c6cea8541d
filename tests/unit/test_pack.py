"""Several runs side by side: each gives what it gives alone, whatever becomes of the others."""

from __future__ import annotations

from pathlib import Path

import pytest
from training import CPU, DIGITS, RECIPE, Watched, banked, config_of, data_of, same, train

from kdbench.config import EpochLog
from kdbench.data import ResidentSplit, load, resolve_dataset
from kdbench.errors import BadInput, TrialFailed
from kdbench.host import PACK_VARIABLE
from kdbench.train import Hooks, Pack, RunOutcome, share_batches, training
from kdbench.train.pack import Turns, pack_size

TWO = RECIPE.model_copy(update={"epochs": 2})
CONFIGS = {
    "warm": config_of(TWO, model="test_efficientnet"),  # with dropout
    "warmer": config_of(TWO, model="test_efficientnet", hyper={"temperature": 9.0, "alpha": 0.3}),
    "other seed": config_of(TWO, model="test_efficientnet", seed=4),
    "other network": config_of(TWO, model="test_vit"),
    "hard": config_of(TWO, method="hard", hyper={}),
    "broken": config_of(TWO.model_copy(update={"lr": 1e30})),
    "pruned": config_of(TWO.model_copy(update={"epochs": 3})),
}


@pytest.fixture
def split(monkeypatch: pytest.MonkeyPatch) -> ResidentSplit:
    """Training data of their own, whose batches are shared by three."""
    monkeypatch.setenv(PACK_VARIABLE, "3")
    data = load(resolve_dataset("digits")[0], DIGITS, TWO, CPU)
    share_batches(data.train)
    assert isinstance(data.train, ResidentSplit) and data.train.share == 3
    monkeypatch.setattr("training.data_of", lambda *given: data)
    return data.train


def hooks(name: str) -> Hooks:
    def on_epoch(log: EpochLog, replayed: bool) -> bool:
        return name == "pruned" and log.epoch == 2

    return Hooks(on_epoch=on_epoch)


def test_packed_runs_equal_runs_alone(tmp_path: Path, split: ResidentSplit) -> None:
    alone = {}
    for name, config in CONFIGS.items():
        if name != "broken":
            alone[name] = train(config, tmp_path / "alone" / name, banked(tmp_path), hooks(name))
    network, packed, failed = Watched(), {}, []
    teacher = banked(tmp_path / "packed", network)

    def run(name: str) -> Turns[None]:
        folder = tmp_path / "packed" / name
        data = data_of(1)
        config, told = CONFIGS[name], hooks(name)
        outcome = yield from training(config, data=data, teacher=teacher, workdir=folder, device=CPU, hooks=told)
        packed[name] = outcome

    pack, waiting, most = Pack(CPU), list(CONFIGS), 0
    while waiting or pack:
        try:
            while waiting and not pack.full:
                pack.add(run(waiting.pop(0)))
            most = max(most, len(pack))
            pack.advance()
        except TrialFailed as error:
            failed.append(str(error))
    assert most == 3 and len(failed) == 1 and "non-finite loss in epoch 1" in failed[0]
    assert packed["pruned"].result.status == "pruned" and packed["pruned"].result.epochs == 2
    for name, outcome in alone.items():
        assert same(outcome, packed[name]), name
    assert not same(packed["warm"], packed["warmer"])
    # one teacher for all: at most two seeds' three epochs of views, and validation once
    assert network.images <= 6 * len(split) + len(data_of(1).val)


def test_runs_of_one_seed_in_step_share_their_batches(split: ResidentSplit, monkeypatch: pytest.MonkeyPatch) -> None:
    rendered: list[int] = []
    monkeypatch.setattr(split, "_render", _counted(split._render, rendered))
    ask = {"batch_size": 64, "order_seed": 1, "augment_seed": 1, "epoch": 1}
    for one, other in zip(split.batches(**ask), split.batches(**ask), strict=True):
        assert one.x is other.x
    assert len(rendered) == 3
    assert len(list(split.batches(**ask | {"augment_seed": 2}))) == 3 and len(rendered) == 6


def test_a_closed_pack_stops_its_runs(tmp_path: Path) -> None:
    stopped = []

    def run() -> Turns[RunOutcome]:
        try:
            return (yield from training(CONFIGS["warm"], data=data_of(), teacher=banked(tmp_path), workdir=tmp_path,
                                        device=CPU))  # fmt: skip
        except GeneratorExit:
            stopped.append(1)
            raise

    pack = Pack(CPU)
    pack.add(run())
    pack.close()
    assert stopped == [1] and not pack


@pytest.mark.parametrize("words", ["0", "two", "-1"])
def test_a_size_that_is_none_is_refused(words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PACK_VARIABLE, words)
    with pytest.raises(BadInput, match=f"{PACK_VARIABLE}={words}"):
        pack_size()


def _counted(render, calls):
    def counted(*given):
        calls.append(1)
        return render(*given)

    return counted
