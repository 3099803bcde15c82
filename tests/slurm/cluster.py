"""A one-machine Slurm cluster in a folder, started and stopped by the tests: munged, slurmctld and slurmd."""

import getpass
import os
import secrets
import shutil
import socket
import subprocess
import time
from pathlib import Path

HERE = Path(__file__).parent
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel")


def why_not() -> str | None:
    """What is missing on this machine, or None if a cluster can be set up."""
    missing = [program for program in PROGRAMS if _find(program) is None]
    if missing:
        return f"Slurm is not installed ({', '.join(missing)}): apt-get install slurmctld slurmd slurm-client munge"
    if os.geteuid() != 0:
        return "slurmd starts its jobs as root only"
    return None


class Cluster:
    """A context manager: ready inside; after it, its own processes are ended and no others. `environment` leads tools to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        path = os.pathsep.join((str(folder / "bin"), *os.get_exec_path()))
        self.environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": path}
        self._processes: list[subprocess.Popen] = []

    def __enter__(self) -> "Cluster":
        self._write_settings()
        try:
            self._start("munged", *self._munge_options(), wait_for=self.folder / "munge.socket")
            self._start("slurmctld", "-D", "-c")
            self._start("slurmd", "-D", "-c")
            self._wait(lambda: self.ask("sinfo", "--noheader", "--format=%T") == "idle", "the node is not ready")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if len(self._processes) == 3:  # jobs are no children of slurmd: let the controller end them
                self.ask("scancel", "--full", "--signal=KILL", "--user", getpass.getuser())
                self.ask("scancel", "--user", getpass.getuser())
                self._wait(lambda: not self.ask("squeue", "--noheader"), "jobs do not end")
        finally:
            for process in reversed(self._processes):
                process.terminate()
                try:
                    process.wait(timeout=10)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()

    def ask(self, *command: str) -> str:
        """The output of a Slurm tool; "" if it cannot reach the controller yet."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=30)
        return done.stdout.strip()

    def jobs(self) -> dict[int, tuple[str, str]]:
        """Every job so far by its number: (state, comment), where the comment names its rule and wildcards."""
        lines = self.ask("squeue", "--states=all", "--noheader", "--format=%i|%T|%k").splitlines()
        return {int(number): (state, comment) for number, state, comment in (line.split("|", 2) for line in lines)}

    def seconds(self, job: int) -> int:
        """How long a job has been running."""
        clock = self.ask("squeue", "--noheader", "--jobs", str(job), "--format=%M")
        parts = [int(part) for part in clock.split(":")]
        return sum(part * 60**power for power, part in enumerate(reversed(parts)))

    def _write_settings(self) -> None:
        for name in ("state", "spool"):
            (self.folder / name).mkdir(parents=True)
        self.folder.chmod(0o755)  # munge's socket must be reachable
        (self.folder / "munge.key").write_bytes(secrets.token_bytes(128))
        (self.folder / "munge.key").chmod(0o600)
        controller_port, node_port = _free_ports(2)
        settings = (HERE / "slurm.conf").read_text(encoding="utf-8")
        facts = {"folder": self.folder, "host": socket.gethostname().split(".")[0], "user": getpass.getuser()}
        settings = settings.format(**facts, controller_port=controller_port, node_port=node_port)
        (self.folder / "slurm.conf").write_text(settings, encoding="utf-8")
        shutil.copy(HERE / "gres.conf", self.folder)
        self._name_it_to_srun()

    def _name_it_to_srun(self) -> None:
        """The executor plugin takes SLURM_CONF from a job's `srun`: a wrapper that restores it is first in the path."""
        srun = self.folder / "bin" / "srun"
        srun.parent.mkdir()
        srun.write_text(f'#!/bin/sh\nSLURM_CONF={self.folder / "slurm.conf"} exec {_find("srun")} "$@"\n')
        srun.chmod(0o755)

    def _munge_options(self) -> list[str]:
        options = {
            "key-file": "munge.key",
            "socket": "munge.socket",
            "pid-file": "munged.pid",
            "seed-file": "munge.seed",
        }
        named = [f"--{option}={self.folder / name}" for option, name in options.items()]
        return ["--foreground", "--force", *named, f"--log-file={self.folder / 'munged.log'}"]

    def _start(self, program: str, *options: str, wait_for: Path | None = None) -> None:
        with (self.folder / f"{program}.out").open("wb") as output:
            command = [_find(program), *options]
            process = subprocess.Popen(
                command, env=self.environment, stdout=output, stderr=output, stdin=subprocess.DEVNULL
            )
        self._processes.append(process)
        if wait_for:
            self._wait(wait_for.exists, f"{program} does not start")

    def _wait(self, ready, otherwise: str, seconds: float = 90.0) -> None:
        deadline = time.monotonic() + seconds
        while not ready():
            ended = [process.args[0] for process in self._processes if process.poll() is not None]
            if ended or time.monotonic() > deadline:
                said = {file.name: file.read_text(errors="replace")[-600:] for file in self.folder.glob("*.out")}
                raise RuntimeError(f"{otherwise}; ended: {ended}; {said}")
            time.sleep(0.1)


def _find(program: str) -> str | None:
    return shutil.which(program, path=os.pathsep.join((*os.get_exec_path(), "/usr/sbin", "/sbin")))


def _free_ports(count: int) -> list[int]:
    holders = [socket.socket() for _ in range(count)]
    try:
        for holder in holders:
            holder.bind(("127.0.0.1", 0))
        return [holder.getsockname()[1] for holder in holders]
    finally:
        for holder in holders:
            holder.close()
