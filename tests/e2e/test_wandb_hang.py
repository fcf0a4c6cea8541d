"""A background process of the W&B client that never ends, as one was seen to do without a network."""

from __future__ import annotations

import subprocess
import sys

from helpers import ROOT

CODE = """
import psutil, signal
from kdbench.track import service
service.TEARDOWN_PATIENCE = 1
service.silence()
core = [child for child in psutil.Process().children() if "wandb-core" in child.name()]
assert len(core) == 1
core[0].send_signal(signal.SIGSTOP)
service.teardown()
assert not core[0].is_running() or core[0].status() == psutil.STATUS_ZOMBIE
print("over")
"""


def test_a_background_process_that_hangs_is_killed() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout.strip() == "over", done.stderr
