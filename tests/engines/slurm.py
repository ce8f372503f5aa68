"""A real Slurm of one node on loopback: munged, slurmctld and slurmd, of Debian's slurm-wlm and munge."""

from __future__ import annotations

import contextlib
import getpass
import os
import platform
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

from jobpool_cli.model import Cluster
from tests.helpers import until

DAEMONS = ("munged", "slurmctld", "slurmd")
SBIN = "/usr/local/sbin:/usr/sbin:/sbin"
# More than this machine may have: its jobs sleep most of the time.
CPUS = 4
MEMORY_MB = 8000
CONF = """\
ClusterName=trial
SlurmctldHost={node}(127.0.0.1)
SlurmctldPort={ctld}
SlurmdPort={slurmd}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
SwitchType=switch/none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
ReturnToService=2
SchedulerParameters=sched_interval=1,sched_min_interval=0
SlurmdParameters=config_overrides
KillWait=2
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
NodeName={node} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory} State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def daemon(name: str) -> str | None:
    """Return where a daemon is, None where it is not installed."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:{SBIN}")


def missing() -> list[str]:
    """Return which daemons are not installed."""
    return [name for name in DAEMONS if daemon(name) is None]


@contextlib.contextmanager
def slurm(folder: Path) -> Iterator[dict[str, str]]:
    """Run Slurm, with its files in a folder; yields the variables that its commands need."""
    node = platform.node().partition(".")[0]
    for each in ("state", "spool", "jobs"):
        (folder / each).mkdir(parents=True)
    key = folder / "munge.key"
    key.touch(0o600)
    key.write_bytes(os.urandom(128))
    conf = folder / "slurm.conf"
    conf.write_text(
        CONF.format(
            node=node,
            folder=folder,
            user=getpass.getuser(),
            ctld=_free_port(),
            slurmd=_free_port(),
            cpus=CPUS,
            memory=MEMORY_MB,
        )
    )
    variables = {"SLURM_CONF": str(conf)}
    started: list[subprocess.Popen[bytes]] = []
    try:
        started.append(
            _start(
                folder, variables, "munged", "--foreground", "--force", f"--key-file={key}",
                f"--socket={folder}/munge.socket", f"--pid-file={folder}/munged.pid",
                f"--log-file={folder}/munged.log", f"--seed-file={folder}/munge.seed",
            )
        )  # fmt: skip
        until((folder / "munge.socket").exists, what="munged listens")
        started.append(_start(folder, variables, "slurmctld", "-D", "-c"))
        started.append(_start(folder, variables, "slurmd", "-D"))
        until(lambda: _state(variables) == "idle", what="the node is idle")
        yield variables
    finally:
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            _ask(variables, "scancel", "--full", f"--user={getpass.getuser()}")
            until(lambda: not _ask(variables, "squeue", "-h"), seconds=20, what="no job is left")
        for process in reversed(started):
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def slurm_cluster(folder: Path) -> Cluster:
    """Return a Dask cluster of jobs with a core each; they write into the folder."""
    options = {
        "cores": 1,
        "memory": "500MB",
        "walltime": "00:10:00",
        "local_directory": str(folder / "jobs"),
        "log_directory": str(folder / "jobs"),
        "scheduler_options": {"host": "127.0.0.1", "dashboard_address": None},
    }
    return Cluster(kind="slurm", options=options)


def jobs(variables: dict[str, str]) -> list[str]:
    """Return the numbers of the jobs that wait or run."""
    return _ask(variables, "squeue", "-h", "-o", "%i").split()


def _start(folder: Path, variables: dict[str, str], name: str, *words: str) -> subprocess.Popen[bytes]:
    with (folder / "daemons.log").open("ab") as log:
        return subprocess.Popen(
            [daemon(name) or name, *words],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, **variables},
            start_new_session=True, cwd=folder,
        )  # fmt: skip


def _ask(variables: dict[str, str], *words: str) -> str:
    asked = subprocess.run(
        words, env={**os.environ, **variables}, capture_output=True, text=True, timeout=20, check=False
    )
    return asked.stdout.strip()


def _state(variables: dict[str, str]) -> str:
    return _ask(variables, "sinfo", "-h", "-o", "%T")


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
