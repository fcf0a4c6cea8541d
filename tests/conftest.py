"""Shared fixtures: the real command line in this process, places to work in, real data."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

# Read when the engine is imported, here and in every process that a test starts: a checkpoint an epoch, so that the
# tiny runs of these tests really are resumed and not started over.
os.environ["KDBENCH_CHECKPOINT_SECONDS"] = "0"
# The tests run in as many processes as there are cores: more threads or workers would only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("KDBENCH_THREADS", "1")

import pytest

from tests.support.helpers import ROOT, Cli, Outcome

# What a test starts finds kdbench and the tests wherever it runs.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str]) -> Cli:
    """Runs ``kdbench ARGS`` in this process through the same entry point and error handling as the script."""
    from kdbench.cli.main import main

    def run(*arguments: object) -> Outcome:
        capfd.readouterr()
        code = main([str(argument) for argument in arguments])
        captured = capfd.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, with the cache inside and no W&B account in reach."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KDBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("WANDB_API_KEY", "WANDB_MODE", "KDBENCH_DEBUG", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "160")
    return tmp_path


@pytest.fixture(autouse=True, scope="session")
def drafts() -> None:
    """Pictures with fewer dots, and fonts drawn into PDFs, not embedded: a report in seconds."""
    from kdbench.report import style

    style._RC |= {"savefig.dpi": 60, "pdf.fonttype": 3}


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The place of a finished sweep, see ``build_whole``: trained once for all test processes, never to be changed."""
    from tests.support.sweeps import build_whole, once

    return once(tmp_path_factory, "whole", build_whole)


@pytest.fixture
def finished(bench: Path, whole: Path) -> Path:
    """An own copy of the finished sweep in the working folder: ``results/whole``, its teacher in the cache."""
    shutil.copytree(whole, bench, symlinks=True, dirs_exist_ok=True)
    return bench / "results" / "whole"


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs whose process is gone are taken up soon."""
    monkeypatch.setattr("kdbench.run.lease.GRACE", 1.0)


@pytest.fixture
def kdbench_data() -> Path:
    """The folder of real data sets."""
    named = os.environ.get("KDBENCH_DATA")
    if not named or not Path(named).is_dir():
        pytest.skip("KDBENCH_DATA names no folder of data sets")
    return Path(named)
