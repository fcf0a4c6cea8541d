"""A W&B client whose background process never ends (seen without a network), or whose own tasks never do."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.helpers import ROOT

STOPPED = """
import psutil, signal
from kdbench.tracking import service
service.TEARDOWN_PATIENCE = 1
service.silence()
core = [child for child in psutil.Process().children() if "wandb-core" in child.name()]
assert len(core) == 1
core[0].send_signal(signal.SIGSTOP)
service.teardown()
assert not core[0].is_running() or core[0].status() == psutil.STATUS_ZOMBIE
print("over")
"""


LOST_TASK = """
import asyncio
from kdbench.tracking import service
service.TEARDOWN_PATIENCE = 1
service.silence()
from wandb.sdk import wandb_setup
wandb_setup.singleton().asyncer.run_soon(asyncio.Event().wait)
service.teardown()
service.silence()
service.teardown()
print("over")
"""


@pytest.mark.parametrize("code", [STOPPED, LOST_TASK])
def test_a_client_that_hangs_ends_all_the_same(code: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout.strip() == "over", done.stderr
