"""A Slurm of three nodes on this machine, in a private folder, on free ports.

A node is a slurmd in private namespaces: it has a host name, a boot ID and processes that no other node sees, and dies
at once with all its processes.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import uuid
from pathlib import Path

from support.daemons import Daemon, free_ports
from support.farming import eventually, need

PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "srun", "scontrol", "unshare")
NODES = ("n1", "n2", "n3")
GPUS = 4
ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "BOOT_FAIL", "OUT_OF_MEMORY", "DEADLINE"}

CONFIGURATION = """\
ClusterName=test
SlurmctldHost=localhost
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=6
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
SlurmctldPort={port}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU,CR_LLN
ReturnToService=2
MpiDefault=none
GresTypes=gpu
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,sched_interval=2,sched_min_interval=0,bf_interval=2
KillWait=15
MinJobAge=3600
SlurmdTimeout=6
MessageTimeout=10
PartitionName=test Nodes=n[1-3] Default=YES MaxTime=INFINITE State=UP
"""
NODE = "NodeName={name} NodeHostname={name} NodeAddr=127.0.0.1 Port={port} CPUs=512 RealMemory=999000 Gres=gpu:{gpus}\n"
INSIDE = """\
hostname "$1"; mount --bind "$2" /etc/hosts; mount --bind "$4" /proc/sys/kernel/random/boot_id
slurmd -D -N "$1" -f "$3" & wait
"""


class SlurmCluster:
    def __init__(self, folder: Path) -> None:
        need(os.getuid() == 0, "a Slurm of our own needs root")
        missing = [program for program in PROGRAMS if shutil.which(program) is None]
        need(not missing, f"not installed: {' '.join(missing)}")
        self.folder = folder
        self.configuration = folder / "slurm.conf"
        self.environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "LC_ALL": "C"}
        self.daemons: dict[str, Daemon] = {}
        self._write()

    def _write(self) -> None:
        controller, *ports = free_ports(1 + len(NODES))
        text = CONFIGURATION.format(folder=self.folder, port=controller)
        devices = []
        for number in range(GPUS):
            devices.append(self.folder / f"gpu{number}")
            devices[-1].symlink_to("/dev/null")
        for name, port in zip(NODES, ports, strict=True):
            text += NODE.format(name=name, port=port, gpus=GPUS)
            (self.folder / f"spool-{name}").mkdir()
            (self.folder / f"boot-{name}").write_text(f"{uuid.uuid4()}\n")
        self.configuration.write_text(text)
        (self.folder / "gres.conf").write_text(f"Name=gpu File={self.folder}/gpu[0-{GPUS - 1}]\n")
        (self.folder / "hosts").write_text(f"127.0.0.1 localhost {socket.gethostname()} {' '.join(NODES)}\n")
        (self.folder / "state").mkdir()
        key = self.folder / "munge.key"
        key.touch(0o600)
        key.write_bytes(os.urandom(128))

    # --- daemons -------------------------------------------------------------------------------

    def start(self) -> None:
        where = self.folder / "munge"
        self._launch(
            "munged",
            [
                "munged",
                "--foreground",
                f"--socket={where}.socket",
                *(f"--{kind}-file={where}.{kind}" for kind in ("key", "pid", "log", "seed")),
            ],
        )
        eventually(Path(f"{where}.socket").exists, "munged listens", 20)
        self._launch("slurmctld", ["slurmctld", "-D", "-f", str(self.configuration)])
        for name in NODES:
            self.start_node(name)
        for name in NODES:
            self.wait_for_node(name, "idle")

    def _launch(self, name: str, words: list[str]) -> None:
        self.daemons[name] = Daemon(words, self.folder / f"{name}.out", self.environment)

    def start_node(self, name: str) -> None:
        words = [
            "unshare",
            "--uts",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "--propagation",
            "slave",
            "sh",
            "-c",
            INSIDE,
            "sh",
        ]
        files = (self.folder / "hosts", self.configuration, self.folder / f"boot-{name}")
        self._launch(name, [*words, name, *map(str, files)])

    def kill_node(self, name: str) -> None:
        """The node loses its power: its slurmd and all its processes are killed."""
        self.daemons.pop(name).kill()

    def wait_for_node(self, name: str, state: str, seconds: float = 40.0) -> None:
        """Wait until the controller reports a state for a node that starts with this word."""

        def there() -> bool:
            return self.try_client("sinfo", "-h", "-n", name, "-o", "%T").startswith(state)

        def standing() -> str:
            log = self.folder / f"{name}.out"
            nodes = self.try_client("sinfo", "-h", "-N", "-o", "%N %T")
            return f"node {name} is {state}: {nodes}\n{log.read_text()[-2000:]}"

        eventually(there, standing, seconds, 0.1)

    def stop(self) -> None:
        for name in NODES:
            if name in self.daemons:
                self.kill_node(name)
        for name in ("slurmctld", "munged"):
            if name in self.daemons:
                self.daemons.pop(name).end()

    # --- clients -------------------------------------------------------------------------------

    def try_client(self, *words: str) -> str:
        """A client's output; empty if it fails."""
        environment = {**self.environment, "SLURM_CONF": str(self.configuration)}
        return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=60).stdout

    def run_client(self, *words: str) -> str:
        """A client's output; it must succeed."""
        environment = {**self.environment, "SLURM_CONF": str(self.configuration)}
        done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout

    def submit(self, folder: Path, variables: dict[str, str], *words: str) -> int:
        """Run `sbatch` in a folder; the job ID."""
        environment = {**self.environment, "SLURM_CONF": str(self.configuration), **variables}
        done = subprocess.run(
            ["sbatch", "--parsable", *words], env=environment, cwd=folder, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, (words, done.stderr)
        return int(done.stdout.split(";")[0])

    def elements(self, job: int) -> list[dict[str, str]]:
        """The output of `scontrol` for a job, or for all elements of an array: the fields of each."""
        text = self.try_client("scontrol", "show", "job", "--oneliner", str(job))
        return [dict(re.findall(r"(\w+)=(\S*)", line)) for line in text.splitlines() if "JobId=" in line]

    def states(self, job: int) -> list[str]:
        return [element["JobState"] for element in self.elements(job)]

    def wait(self, job: int, seconds: float = 150.0) -> list[tuple[str, int]]:
        """Wait for the end of a job; the state and the exit status of every element."""

        def ended() -> bool:
            found = self.states(job)
            return bool(found) and set(found) <= ENDED

        eventually(ended, f"the end of job {job}: {self.elements(job)}", seconds, 0.2)
        return [(one["JobState"], int(one["ExitCode"].split(":")[0])) for one in self.elements(job)]
