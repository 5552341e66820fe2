"""Jobs that stay in the middle of a list for as long as a test needs."""

from __future__ import annotations

from support.farming import eventually
from support.fields import EXAMPLES, ClusterField
from support.slurm_cluster import SlurmCluster

SLURM = EXAMPLES / "slurm"
TASKS = 48
AGAIN = 75


class SlowJob:
    """A job on a list whose tasks wait until `hurry`. Their waiting command can be nested `within` another one."""

    def __init__(
        self,
        slurm: SlurmCluster,
        field: ClusterField,
        script: str,
        *options: str,
        tasks: int = TASKS,
        within: str = "{}",
    ) -> None:
        self.slurm = slurm
        self.field = field
        self.script = f"{SLURM}/{script}"
        self.fast = field.folder / "fast"
        begun = f": >{field.folder}/begun-${{SLURM_RESTART_COUNT:-0}}"
        wait = f"n=0; until [ -e {self.fast} ] || [ $((n += 1)) -gt 600 ]; do sleep 0.1; done"
        field.tasks(tasks, 0.1, then=f"{begun}; {within.format(wait)}")
        self.options = options
        self.job = 0

    def submit(self, *script_arguments: str) -> None:
        words = (*self.options, self.script, "list", *script_arguments)
        self.job = self.slurm.submit(self.field.folder, self.field.variables, *words)

    def hurry(self) -> None:
        self.fast.touch()

    def wait_for_starts(self, count: int) -> None:
        self.field.wait_for_runs(count)

    def elements(self) -> list[tuple[str, int]]:
        return self.slurm.wait(self.job)

    def resubmit(self, *script_arguments: str) -> None:
        """Submit the same line again until the list is complete, as a user would."""
        self.hurry()
        for _ in range(4):
            if not self.field.unfinished():
                return
            self.submit(*script_arguments)
            self.elements()

    def restarts(self) -> int:
        return max(int(element["Restarts"]) for element in self.slurm.elements(self.job))

    def has_restarted(self, times: int) -> None:
        """Wait until tasks run after this many restarts, or more, because a start may be interrupted at once."""

        def begun() -> bool:
            return any(int(path.name.removeprefix("begun-")) >= times for path in self.field.folder.glob("begun-*"))

        eventually(begun, lambda: f"restart {times} of {self.script}; {self.field.said()}", 120, 0.1)
