"""A Slurm cluster of this machine alone: one controller, two nodes of one core, a partition that preempts the other."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PARTS = ("slurmctld", "slurmd", "sbatch", "munged", "munge")


def lacking() -> str | None:
    """Why there can be none here."""
    absent = [name for name in PARTS if shutil.which(name) is None]
    if absent:
        return f"no {absent[0]} here (Debian: apt-get install slurm-wlm munge)"
    return None if os.geteuid() == 0 else "Slurm's daemons need root"


@contextmanager
def cluster(place: Path) -> Iterator[dict[str, str]]:
    """Start it below ``place``; the environment that its commands need."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1] % 20_000 + 20_000
    host, conf = socket.gethostname(), place / "slurm.conf"
    nodes = "".join(f"NodeName=n{k} NodeHostname={host} Port={port + k} CPUs=1\n" for k in (1, 2))
    logs = "".join(f"Slurm{one}dLogFile={place}/{one or 'node-%n'}.log\n" for one in ("ctl", ""))
    conf.write_text(
        f"ClusterName=test\nSlurmctldHost={host}\nSlurmUser=root\nSlurmdUser=root\nAuthType=auth/munge\n"
        f"SlurmctldPort={port}\nProctrackType=proctrack/linuxproc\nTaskPlugin=task/none\nMpiDefault=none\n"
        "SelectType=select/cons_tres\nSelectTypeParameters=CR_Core\nReturnToService=2\nJobRequeue=1\n"
        f"StateSaveLocation={place}/state\nSlurmdSpoolDir={place}/spool-%n\n{logs}"
        f"SlurmctldPidFile={place}/ctl.pid\nSlurmdPidFile={place}/node-%n.pid\n"
        "PreemptType=preempt/partition_prio\nPreemptMode=REQUEUE\nSchedulerParameters=bf_interval=2\n"
        f"{nodes}PartitionName=main Nodes=ALL Default=YES PriorityTier=1\n"
        "PartitionName=urgent Nodes=ALL PriorityTier=10 PreemptMode=OFF\n"
    )
    for name in ("state", "spool-n1", "spool-n2"):
        (place / name).mkdir()
    if subprocess.run(["munge", "-n"], capture_output=True, check=False).returncode:
        Path("/run/munge").mkdir(exist_ok=True)
        shutil.chown("/run/munge", "munge")
        subprocess.run(["su", "-s", "/bin/sh", "munge", "-c", "munged"], check=True)
    environment = {"SLURM_CONF": str(conf)}
    held = {**os.environ, **environment}
    subprocess.run(["slurmctld"], env=held, check=True)
    for name in ("n1", "n2"):
        subprocess.run(["slurmd", "-N", name], env=held, check=True)
    try:
        until = time.monotonic() + 60
        while "idle" not in (said := run("sinfo -h -o %T", environment)):
            assert time.monotonic() < until, said
            time.sleep(0.5)
        yield environment
    finally:
        run("scancel -u root", environment)
        for path in (*place.glob("node-*.pid"), place / "ctl.pid"):
            with suppress(OSError, ValueError):
                os.kill(int(path.read_text()), signal.SIGTERM)


def run(words: str, environment: dict[str, str]) -> str:
    """What a command of Slurm says."""
    done = subprocess.run(words.split(), env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr
