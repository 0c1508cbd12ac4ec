"""A Slurm of one node on the loopback device, for tests: `python tests/slurm/cluster.py up|down`.

Needs root and Debian's package slurm-wlm; no systemd, no munge, and accounting only where it is
asked for (see `accounting`). The GPUs are null devices. /etc/slurm/slurm.conf becomes a link into
the cluster's folder, because Snakemake's job steps look nowhere else; another cluster's file there
is left alone, and the tests refuse to run.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import accounting

CONFIG = Path("/etc/slurm/slurm.conf")
FOLDER = Path("/tmp/teramind-slurm")
GPUS = 2
DAEMONS = ("slurmctld", "slurmd")
NO_ACCOUNTING = "AccountingStorageType=accounting_storage/none"

SETTINGS = """
ClusterName=teramind
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
# nobody else is on this network
AuthType=auth/none
CredType=cred/none
SlurmctldPort=26817
SlurmdPort=26818
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
# processes are followed and measured without control groups, which containers lack
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
{accounting}
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerParameters=sched_interval=1,batch_sched_delay=0
# finished jobs stay listed, so that tests can look at what was asked for
MinJobAge=7200
KillWait=2
ReturnToService=2
SlurmdParameters=config_overrides
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory} Gres=gpu:{gpus}
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str | None:
    """Why no cluster can be brought up here; None when one can."""
    if os.geteuid() != 0:
        return "only root can start Slurm's daemons"
    if absent := [name for name in DAEMONS if shutil.which(name) is None]:
        return f"{', '.join(absent)} not found; apt-get install slurm-wlm"
    if CONFIG.exists() and CONFIG.resolve().parent != FOLDER:
        return f"{CONFIG} belongs to another cluster"
    return None


def up(*, with_accounting: bool = False) -> None:
    """Start the daemons and wait until the node takes jobs."""
    down()
    for name in ("state", "spool"):
        (FOLDER / name).mkdir(parents=True)
    host = socket.gethostname().partition(".")[0]
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    memory = pages * size * 9 // 10 // 2**20
    cpus = os.cpu_count()
    settings = SETTINGS.format(
        folder=FOLDER,
        host=host,
        cpus=cpus,
        memory=memory,
        gpus=GPUS,
        accounting=accounting.IN_SLURM if with_accounting else NO_ACCOUNTING,
    )
    (FOLDER / "slurm.conf").write_text(settings)
    for gpu in range(GPUS):
        os.mknod(FOLDER / f"gpu{gpu}", 0o20666, os.makedev(1, 3))
    (FOLDER / "gres.conf").write_text(f"NodeName={host} Name=gpu File={FOLDER}/gpu[0-{GPUS - 1}]\n")
    CONFIG.parent.mkdir(exist_ok=True)
    CONFIG.unlink(missing_ok=True)
    CONFIG.symlink_to(FOLDER / "slurm.conf")
    if with_accounting:
        ready = accounting.start(FOLDER)
        if not wait_for(lambda: output(*ready) != "", seconds=60):
            log = (FOLDER / "slurmdbd.log").read_text()[-2000:]
            down()
            raise RuntimeError(f"accounting does not start\n{log}")
    for daemon in DAEMONS:  # told where, they find gres.conf beside their configuration
        environment = os.environ | {"SLURM_CONF": str(FOLDER / "slurm.conf")}
        subprocess.run([daemon], check=True, env=environment)
    if not wait_for(lambda: output("sinfo", "--noheader", "--format=%T") == "idle", seconds=60):
        logs = [(FOLDER / f"{daemon}.log").read_text()[-2000:] for daemon in DAEMONS]
        down()
        raise RuntimeError("the node does not become idle\n" + "\n".join(logs))


def down() -> None:
    """End all jobs and the daemons that `up` started, and remove every trace."""
    if CONFIG.is_symlink() and CONFIG.resolve().parent == FOLDER:
        output("scancel", "--user=root")
        wait_for(lambda: output("squeue", "--noheader") == "", seconds=20)
    for daemon in reversed((*accounting.DAEMONS, *DAEMONS)):
        end(FOLDER / f"{daemon}.pid")
    if CONFIG.is_symlink() and CONFIG.resolve().parent == FOLDER:
        CONFIG.unlink()
    shutil.rmtree(FOLDER, ignore_errors=True)


def end(pid_file: Path) -> None:
    """End the daemon whose number a file holds."""
    if not pid_file.exists():
        return
    pid = int(pid_file.read_text())
    for number in (signal.SIGTERM, signal.SIGKILL):
        if Path(f"/proc/{pid}").exists():
            os.kill(pid, number)
            if wait_for(lambda: not Path(f"/proc/{pid}").exists(), seconds=20):
                return


def output(*command: str) -> str:
    """What a command prints; empty when it fails."""
    run = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return run.stdout.strip() if run.returncode == 0 else ""


def wait_for(condition: Callable[[], bool], *, seconds: float) -> bool:
    """Wait until a condition holds; False when it does not in time."""
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.2)
    return True


@contextmanager
def cluster(*, with_accounting: bool = False) -> Iterator[None]:
    """A cluster for the block."""
    up(with_accounting=with_accounting)
    try:
        yield
    finally:
        down()


if __name__ == "__main__":
    if reason := missing():
        sys.exit(f"no Slurm here: {reason}")
    {"up": up, "down": down}[sys.argv[1]]()
