"""Where numbers come from: the machine and the commit. Standard library only."""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Machine:
    """The machine; ``load`` is the load average as the run began."""

    cpu: str
    cores: int
    memory_gib: float
    system: str
    python: str
    load: float


def this_machine() -> Machine:
    """Describe this one."""
    affinity = getattr(os, "sched_getaffinity", None)
    return Machine(
        cpu=_cpu(),
        cores=len(affinity(0)) if affinity else os.cpu_count() or 1,
        memory_gib=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        system=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        load=round(os.getloadavg()[0], 2),
    )


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def commit() -> str:
    """Name the commit, with ``+`` where the working tree differs from it."""
    here = Path(__file__).parent

    def git(*arguments: str) -> str:
        try:
            done = subprocess.run(
                ["git", "-C", str(here), *arguments], capture_output=True, text=True, check=False
            )
        except FileNotFoundError:
            return ""
        return done.stdout.strip()

    short = git("rev-parse", "--short", "HEAD")
    measured = (":!results.json", ":!quality.json", ":!*.svg")
    changed = git("status", "--porcelain", "-uno", "--", ".", *measured)
    return f"{short}+" if short and changed else short or "unknown"
