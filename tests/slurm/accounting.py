"""The database of finished jobs that `sacct` asks: MariaDB and slurmdbd, on the loopback device.

Needs root and Debian's packages mariadb-server and slurmdbd. Without passwords, for nobody else is
on this network.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

PROGRAMS = ("mariadb-install-db", "mariadbd", "slurmdbd", "sacctmgr")
DAEMONS = ("mariadbd", "slurmdbd")
"""In the order in which they start."""

PORT, DATABASE_PORT = 26819, 26820
IN_SLURM = f"""
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={PORT}
"""
"""What slurm.conf says of it."""

SETTINGS = """
AuthType=auth/none
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={port}
SlurmUser=root
PidFile={folder}/slurmdbd.pid
LogFile={folder}/slurmdbd.log
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={database_port}
StorageUser=root
"""


def missing() -> str | None:
    """Why there can be no accounting here; None when there can."""
    if absent := [name for name in PROGRAMS if shutil.which(name) is None]:
        return f"{', '.join(absent)} not found; apt-get install slurmdbd mariadb-server"
    return None


def start(folder: Path) -> list[str]:
    """Start database and daemon; return the command that prints something once they are ready."""
    data, settings = folder / "database", folder / "slurmdbd.conf"
    make = ["mariadb-install-db", "--no-defaults", "--user=root", f"--datadir={data}"]
    subprocess.run(make, check=True, capture_output=True)
    serve = ["mariadbd", "--no-defaults", "--user=root", f"--datadir={data}", "--skip-grant-tables"]
    serve += ["--bind-address=127.0.0.1", f"--port={DATABASE_PORT}", f"--socket={folder}/mariadb"]
    serve += [f"--pid-file={folder}/mariadbd.pid", f"--log-error={folder}/mariadbd.log"]
    subprocess.run(["setsid", "--fork", *serve], check=True, capture_output=True)
    settings.write_text(SETTINGS.format(folder=folder, port=PORT, database_port=DATABASE_PORT))
    settings.chmod(0o600)  # slurmdbd reads no other
    where = os.environ | {"SLURM_CONF": str(folder / "slurm.conf")}  # its own lies beside that
    subprocess.run(["slurmdbd"], check=True, env=where)  # waits for the database
    # Its settings sacctmgr shows before the daemon answers; what resources are counted, only then.
    return ["sacctmgr", "--immediate", "--noheader", "show", "tres"]
