"""How much of the machine this process may use: of a container's share, where it is in one, and no more."""

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

GROUPS = Path("/sys/fs/cgroup")
OWN_GROUPS = Path("/proc/self/cgroup")


def usable_cores() -> int:
    """How many cores this process may use, by its affinity and by its control groups; at least 1."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    shares = [*_quotas("cpu.max"), *_quotas("cpu.cfs_quota_us", "cpu.cfs_period_us")]
    return max(1, min([allowed, *(math.ceil(share) for share in shares)]))


def usable_memory() -> int:
    """How many bytes of memory this process may use, by its machine and by its control groups."""
    limits = [limit for name in ("memory.max", "memory.limit_in_bytes") for limit, *_ in _numbers(name)]
    return min([os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), *limits])


def _quotas(*names: str) -> Iterator[float]:
    """Cores that groups leave, of which a file says, or two do, how much time in how long a period."""
    for found in _numbers(*names):
        if len(found) == 2 and min(found) > 0:
            yield found[0] / found[1]


def _numbers(*names: str) -> Iterator[list[int]]:
    """What files of these names say in each group that this process is in, where all of it is numbers."""
    for group in _groups(names[0].partition(".")[0]):
        texts = " ".join(_read(group / name) for name in names).split()
        if texts and all(text.lstrip("-").isdecimal() for text in texts):
            yield [int(text) for text in texts]


def _groups(controller: str) -> Iterator[Path]:
    """The folders of this process's control groups and of all above them, of version 2 and of version 1."""
    for line in _read(OWN_GROUPS).splitlines():
        _, controllers, path = f"{line}::".split(":")[:3]
        inner = PurePosixPath(path.lstrip("/"))
        roots = [GROUPS / controller] if controller in controllers.split(",") else []
        for root in roots if controllers else [GROUPS, GROUPS / "unified"]:
            yield from (root / part for part in (inner, *inner.parents))


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, ValueError):
        return ""
