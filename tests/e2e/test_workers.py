"""Several workers, killed and stopped in every way: the table as one worker makes it, every run once."""

from __future__ import annotations

import importlib.util
import os
import random
import shutil
import signal
import time
from collections import Counter
from contextlib import suppress
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest

import kdbench
from kdbench.catalog.recipes import PRESETS
from kdbench.sweeps.store import read_status
from tests.support import slurm
from tests.support.processes import ended_with, finish, start, wait_for
from tests.support.sweeps import UNEQUAL, command, here, once, sweep_here
from tests.support.wandb_files import find_runs, read_offline

# random points depend on no other trial, and nothing is pruned: the order of runs cannot matter
ASKED: dict[str, Any] = {"trials": 2, "epochs": 3, "limit": 100, "sampler": "random", "pruner": "none", "name": "run"}
ARGUMENTS = [word for name, value in ASKED.items() for word in (f"--{name}", value)]
ROWS = {"teacher": 1, "baseline": 1, "search": 2, "confirm": 4}


def table(place: Path) -> pd.DataFrame:
    return kdbench.load(place / "results/run").runs.drop(columns=UNEQUAL).set_index("trial_id").sort_index()


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sweep by one worker, undisturbed; its cache holds the teacher that the others share."""
    return once(tmp_path_factory, "one", partial(sweep_here, **ASKED))


def leases(place: Path) -> list[Path]:
    """Of runs under way."""
    found = place.glob("results/run/trials/*/lease")
    return [path for path in found if not path.with_name("result.json").exists()]


def agree(place: Path, one: Path) -> None:
    pd.testing.assert_frame_equal(table(place), table(one))
    assert table(place)["phase"].value_counts().to_dict() == ROWS
    assert leases(place) == []


@pytest.mark.slow
def test_two_workers_killed_with_their_coordinator_give_the_table_of_one(one: Path, tmp_path: Path) -> None:
    words = command(tmp_path / "results", one / "cache", *ARGUMENTS, "--workers", 2)
    folder, log = tmp_path / "results/run", tmp_path / "log"
    sweep = start(words, log)
    wait_for(lambda: len(leases(tmp_path)) == 2, sweep, log)
    wait_for(lambda: "training" in {row["now"] for row in read_status(folder)["under_way"]}, sweep, log)
    os.killpg(sweep.pid or 0, signal.SIGKILL)
    sweep.join()
    assert finish([*words, "--workers", "1"], log).count("waiting for it") == 1  # once for all that was left behind
    assert not read_status(folder)["under_way"]
    agree(tmp_path, one)
    runs = [read_offline(path) for path in find_runs(folder)]
    whole = [run for run in runs if not run.dead and run.exit_code == 0 and run.job_type != "teacher"]
    assert all([row["epoch"] for row in run.history] == [1, 2, 3] for run in whole)
    students = table(tmp_path).query("phase != 'teacher'").index
    assert Counter(run.config["trial_id"] for run in whole) == Counter(students)


@pytest.mark.slow
def test_a_mirror_that_breaks_costs_no_run_and_a_run_that_is_removed_is_not_missed(one: Path, tmp_path: Path) -> None:
    words = command(tmp_path / "results", one / "cache", *ARGUMENTS, "--workers", 2)
    log, mirror = tmp_path / "log", tmp_path / "mirror.db"
    sweep = start([*words, "--storage", f"sqlite:///{mirror}"], log)
    wait_for(lambda: [*tmp_path.glob("results/run/trials/*/result.json")][2:], sweep, log)
    mirror.write_bytes(b"no database" * 9999)
    shutil.rmtree(next(tmp_path.glob("results/run/trials/*/result.json")).parent)
    said = ended_with(sweep, log, 1)
    assert "the storage is no longer written" in said and " gone" in said
    finish(words, log)
    agree(tmp_path, one)


@pytest.mark.slow
def test_a_run_in_two_processes_of_which_one_dies(one: Path, tmp_path: Path) -> None:
    """The same runs (losses to rounding: tests/unit/test_parallel.py), and none waits for what is gone."""
    words = command(tmp_path / "results", one / "cache", *ARGUMENTS, "--device", "cpu", "--gpus-per-run", 2)
    log = tmp_path / "log"
    sweep = start(words, log)
    wait_for(lambda: leases(tmp_path), sweep, log)
    server = next(p for p in psutil.Process(sweep.pid).children() if "forkserver" in " ".join(p.cmdline()))

    def others() -> list[psutil.Process]:
        """What the worker started, by a server of its own."""
        return [p for worker in server.children() for own in worker.children() for p in own.children()]

    wait_for(others, sweep, log)
    left = [*server.children(), *others()]
    others()[0].kill()
    said = ended_with(sweep, log, 0)
    assert "exit code 1" in said and not any(p.is_running() for p in left), said
    assert sorted(table(tmp_path).index) == sorted(table(one).index)


def stop(sweep: BaseProcess, place: Path, code: int, *signals: int) -> None:
    """Send ``signals`` one after another; it ends with ``code`` and leaves no lease."""
    for number in signals:
        with suppress(ProcessLookupError):  # the first one may have been enough
            os.killpg(sweep.pid or 0, number)
        time.sleep(0.2)
    ended_with(sweep, place / "log", code)
    assert leases(place) == []


def test_a_killed_worker_then_control_c_twice(one: Path, tmp_path: Path) -> None:
    words = command(tmp_path / "results", one / "cache", *ARGUMENTS, "--workers", 2, "--json")
    log = tmp_path / "log"
    sweep = start(words, log)
    wait_for(lambda: leases(tmp_path), sweep, log)
    server = next(p for p in psutil.Process(sweep.pid).children() if "forkserver" in " ".join(p.cmdline()))
    server.children()[0].kill()
    wait_for(lambda: "signal 9" in log.read_text() and leases(tmp_path), sweep, log)
    stop(sweep, tmp_path, 130, signal.SIGINT, signal.SIGINT)
    said = here([*words, "--workers", "1"], log)
    assert "Traceback" not in said and said.count("the same command goes on where it stopped") == 1
    assert "waiting for it" not in said and not list(tmp_path.glob("results/**/*.tmp"))  # nothing was left behind
    agree(tmp_path, one)


@pytest.mark.slow
def test_signals_twice_while_it_prepares_and_while_it_trains_then_a_killed_coordinator(
    one: Path, tmp_path: Path
) -> None:
    words = command(tmp_path / "results", one / "cache", *ARGUMENTS, "--workers", 2, "--json")
    log = tmp_path / "log"
    for when, code, how in ((log.read_text, 130, signal.SIGINT), (lambda: leases(tmp_path), 143, signal.SIGTERM)):
        sweep = start(words, log)
        wait_for(when, sweep, log)
        stop(sweep, tmp_path, code, how, how)
    sweep = start(words, log)
    wait_for(lambda: leases(tmp_path), sweep, log)
    family = psutil.Process(sweep.pid).children(recursive=True)
    sweep.kill()  # alone: its workers and W&B's client notice
    assert psutil.wait_procs(family, timeout=60)[1] == []
    assert leases(tmp_path) == []
    said = finish(words, log)
    assert "Traceback" not in said and said.count("the same command goes on where it stopped") == 2
    agree(tmp_path, one)


@pytest.mark.parametrize("name", ["deit", *(pytest.param(n, marks=pytest.mark.slow) for n in PRESETS if n != "deit")])
def test_two_workers_give_the_table_of_one_under_a_published_recipe(tmp_path: Path, name: str) -> None:
    asked = {**ASKED, "recipe": name, "trials": 2, "epochs": 2, "batch_size": 32, "seeds": 1, "limit": 100}
    tables = []
    for workers in (1, 2):
        sweep_here(place := tmp_path / str(workers), **asked, workers=workers)
        tables.append(table(place))
    pd.testing.assert_frame_equal(*tables)
    assert tables[0]["status"].eq("complete").all()


@pytest.mark.slow
def test_a_storm_of_kills_changes_no_number(tmp_path: Path) -> None:
    """Four workers of which one is killed after every third run, the coordinator twice: each run once, one table."""
    asked = {**ASKED, "trials": 16, "seeds": 20, "epochs": 2}
    sweep_here(calm := tmp_path / "calm", **asked)
    arguments = [word for name, value in asked.items() for word in (f"--{name}", value)]
    words = command(tmp_path / "results", calm / "cache", *arguments, "--workers", 4)
    rng, log, kills = random.Random(0), tmp_path / "log", 0

    def ended() -> int:
        return len([*tmp_path.glob("results/*/trials/*/result.json")])

    for life in range(3):
        sweep, deaths = start(words, log), 0
        wait_for(lambda: leases(tmp_path), sweep, log)
        while sweep.is_alive() and (deaths < 4 or life == 2):
            before = ended()
            while sweep.is_alive() and ended() < before + 3:
                time.sleep(0.05)
            with suppress(psutil.Error, IndexError):
                family = psutil.Process(sweep.pid).children(recursive=True)
                server = next(p for p in family if "forkserver" in " ".join(p.cmdline()))
                rng.choice(server.children()).kill()
                deaths += 1
        kills += deaths
        if life < 2:
            assert sweep.is_alive()
            os.killpg(sweep.pid or 0, signal.SIGKILL)
            sweep.join()
    assert sweep.exitcode == 0 and kills > 8, log.read_text()[-2000:]
    pd.testing.assert_frame_equal(table(tmp_path), table(calm))
    assert table(tmp_path)["status"].eq("complete").all() and len(table(calm)) == 58
    assert leases(tmp_path) == []


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs Ray")
def test_a_node_of_a_ray_cluster_that_goes_costs_no_run(one: Path, tmp_path: Path) -> None:
    """One node of two is removed; the plan goes on with what is left, and stopping it leaves no lease."""
    from ray.cluster_utils import Cluster

    words = command(tmp_path / "results", one / "cache", *ARGUMENTS, "--executor", "ray", "--workers", 2)
    log = tmp_path / "log"
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        node = nodes.add_node(num_cpus=1)
        sweep = start(words, log, RAY_ADDRESS=nodes.address)
        wait_for(lambda: len(leases(tmp_path)) == 2, sweep, log)
        nodes.remove_node(node, allow_graceful=False)
        wait_for(lambda: "died" in log.read_text(), sweep, log)
        wait_for(lambda: leases(tmp_path), sweep, log)
        stop(sweep, tmp_path, 143, signal.SIGTERM)
        assert "waiting for it" not in ended_with(start(words, log, RAY_ADDRESS=nodes.address), log, 0)
    finally:
        nodes.shutdown()
    agree(tmp_path, one)


@pytest.mark.slow
@pytest.mark.skipif(slurm.lacking() is not None, reason=str(slurm.lacking()))
def test_slurm_may_preempt_its_workers(one: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Both are requeued for a job that is more urgent, connect again and go on from their checkpoints."""
    log, place = tmp_path / "log", tmp_path_factory.mktemp("slurm")
    words = command(tmp_path / "results", one / "cache", *ARGUMENTS, "--executor", "slurm", "--workers", 2)
    with slurm.cluster(place) as environment:
        sweep = start(words, log, **environment)
        wait_for(lambda: len(leases(tmp_path)) == 2, sweep, log)
        script = place / "urgent.sh"
        script.write_text("#!/bin/sh\nsleep 4\n")
        assert "Submitted" in slurm.run(f"sbatch -p urgent -N 2 -o /dev/null {script}", environment)
        wait_for(lambda: "preempted or died" in log.read_text(), sweep, log)
        said = ended_with(sweep, log, 0)
        assert "waiting for it" not in said
        assert slurm.run("squeue -h -p main", environment) == ""  # no job is left behind
    agree(tmp_path, one)
    assert not list((tmp_path / "results/run/.slurm").glob("key"))
