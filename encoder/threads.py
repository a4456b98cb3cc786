"""How many cores this process may use."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Final

_QUOTA: Final = Path("/sys/fs/cgroup/cpu.max")


def usable_cores(quota: Path = _QUOTA) -> int:
    """Count the cores of the process's affinity, at most those of its container's quota.

    torch counts the machine's: in a container with two cores of 64 its threads would wait for each
    other. At least 1.

    Args:
        quota: the file of control groups v2, ``max 100000`` or ``200000 100000``.
    """
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    try:
        allowed, period = quota.read_text().split()
        if allowed != "max":
            cores = min(cores, math.ceil(int(allowed) / int(period)))
    except (OSError, ValueError, ZeroDivisionError):
        return max(1, cores)  # no such file, or no container: no quota
    return max(1, cores)
