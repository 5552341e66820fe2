"""A Grid Engine of one node on this machine, in a private folder, on free ports."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from pathlib import Path

from support.daemons import Daemon, free_ports
from support.farming import eventually, need

INSTALLED = Path("/var/lib/gridengine")
SHARED = Path("/usr/share/gridengine")
TOOLS = Path("/usr/lib/gridengine")
PROGRAMS = ("sge_qmaster", "sge_execd", "qsub", "qconf", "qstat", "qdel")

BOOTSTRAP = """\
admin_user root
default_domain none
ignore_fqdn false
spooling_method berkeleydb
spooling_lib libspoolb
spooling_params {folder}/spool
binary_path /usr/sbin
qmaster_spool_dir {folder}/qmaster
security_mode none
listener_threads 2
worker_threads 2
scheduler_threads 1
"""
LIMITS = "".join(
    f"{kind}_{what} INFINITY\n"
    for what in ("rt", "cpu", "fsize", "data", "stack", "core", "rss", "vmem")
    for kind in "sh"
)
QUEUE = f"""\
qname all.q
hostlist localhost
seq_no 0
load_thresholds NONE
suspend_thresholds NONE
nsuspend 1
suspend_interval 00:05:00
priority 0
min_cpu_interval 00:05:00
processors UNDEFINED
qtype BATCH
ckpt_list NONE
pe_list smp
rerun FALSE
slots 64
tmpdir /tmp
shell /bin/bash
prolog NONE
epilog NONE
shell_start_mode posix_compliant
starter_method NONE
suspend_method NONE
resume_method NONE
terminate_method NONE
notify 00:00:20
owner_list NONE
user_lists NONE
xuser_lists NONE
subordinate_list NONE
complex_values NONE
projects NONE
xprojects NONE
calendar NONE
initial_state default
{LIMITS}"""
PARALLEL = """\
pe_name smp
slots 64
user_lists NONE
xuser_lists NONE
start_proc_args NONE
stop_proc_args NONE
allocation_rule $pe_slots
control_slaves FALSE
job_is_first_task TRUE
urgency_slots min
accounting_summary FALSE
qsort_args NONE
"""


class GridEngine:
    def __init__(self, folder: Path) -> None:
        need(os.getuid() == 0, "a Grid Engine of our own needs root")
        missing = [program for program in PROGRAMS if shutil.which(program) is None]
        need(not missing and TOOLS.is_dir(), f"not installed: {' '.join(missing)}")
        self.folder = folder
        master, execution = free_ports(2)
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "SGE_ROOT": str(folder / "root"),
            "SGE_CELL": "default",
            "SGE_QMASTER_PORT": str(master),
            "SGE_EXECD_PORT": str(execution),
        }
        self.daemons: list[Daemon] = []
        self._write()

    def _write(self) -> None:
        common = self.folder / "root" / "default" / "common"
        common.mkdir(parents=True)
        for name in ("bin", "lib", "util", "utilbin"):
            (self.folder / "root" / name).symlink_to(INSTALLED / name)
        for name in ("spool", "qmaster/job_scripts", "execd"):
            (self.folder / name).mkdir(parents=True)
        (common / "bootstrap").write_text(BOOTSTRAP.format(folder=self.folder))
        (common / "act_qmaster").write_text("localhost\n")
        (common / "host_aliases").write_text(f"localhost {socket.gethostname()}\n")
        (self.folder / "queue").write_text(QUEUE)
        (self.folder / "parallel").write_text(PARALLEL)
        given = (SHARED / "default-configuration").read_text()
        values = {"execd_spool_dir": str(self.folder / "execd"), "min_uid": "0", "min_gid": "0"}
        for key, value in values.items():
            given = re.sub(rf"(?m)^{key}\b.*$", f"{key} {value}", given)
        (self.folder / "configuration").write_text(given)

    def start(self) -> None:
        self.run_client(str(TOOLS / "spoolinit"), "berkeleydb", "libspoolb", str(self.folder / "spool"), "init")
        resources = SHARED / "util" / "resources"
        for words in (
            ("configuration", str(self.folder / "configuration")),
            ("complexes", str(resources / "centry")),
            ("usersets", str(resources / "usersets")),
            ("managers", "root"),
        ):
            self.run_client(str(TOOLS / "spooldefaults"), *words)
        self._launch("sge_qmaster")
        eventually(lambda: "root" in self.try_client("qconf", "-sm"), "the master answers", 60, 0.1)
        self.run_client("qconf", "-as", "localhost")
        self._launch("sge_execd")
        eventually(lambda: "localhost" in self.try_client("qconf", "-sel"), "the node is there", 20, 0.1)
        self.run_client("qconf", "-Ap", str(self.folder / "parallel"))
        self.run_client("qconf", "-Aq", str(self.folder / "queue"))
        self._hurry()
        eventually(lambda: "lx-" in self.try_client("qstat", "-f"), "the queue is open", 20, 0.1)

    def _hurry(self) -> None:
        """Schedule every second, and at once when a job is submitted or ends."""
        text = self.try_client("qconf", "-ssconf")
        for key, value in (("schedule_interval", "0:0:1"), ("flush_submit_sec", "1"), ("flush_finish_sec", "1")):
            text = re.sub(rf"(?m)^{key}\b.*$", f"{key} {value}", text)
        (self.folder / "scheduler").write_text(text)
        self.run_client("qconf", "-Msconf", str(self.folder / "scheduler"))

    def _launch(self, name: str) -> None:
        # SGE_ND: stay in the foreground
        environment = {**self.environment, "SGE_ND": "1"}
        self.daemons.append(Daemon([f"/usr/sbin/{name}"], self.folder / f"{name}.out", environment))

    def stop(self) -> None:
        for daemon in reversed(self.daemons):
            daemon.kill()

    # --- clients -------------------------------------------------------------------------------

    def try_client(self, *words: str) -> str:
        """A client's output; empty if it fails."""
        return subprocess.run(words, env=self.environment, capture_output=True, text=True, timeout=60).stdout

    def run_client(self, *words: str) -> str:
        """A client's output; it must succeed."""
        done = subprocess.run(words, env=self.environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout

    def submit(self, folder: Path, variables: dict[str, str], *words: str) -> int:
        """Run `qsub` in a folder; the job ID."""
        environment = {**self.environment, **variables}
        done = subprocess.run(
            ["qsub", "-terse", *words], env=environment, cwd=folder, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, (words, done.stderr)
        return int(done.stdout.split(".")[0])

    def present(self, job: int) -> bool:
        """Whether a job is pending or running."""
        return any(line.split()[:1] == [str(job)] for line in self.try_client("qstat").splitlines())

    def wait(self, job: int, seconds: float = 90.0) -> None:
        eventually(lambda: not self.present(job), f"the end of job {job}", seconds, 0.2)
