"""Threads of torch on machines that others use, too: no more than cores, and asleep when they wait.

GNU's OpenMP, which torch's wheels bring, lets a thread that waits for the others spin for some
milliseconds. Where another process holds a core, the one that is waited for is not running, and who
spins keeps it from a core: trainings then ran at a quarter of their speed and less, and sleeping at
once costs them nothing alone (tests/perf/shared_machine.py). OpenMP keeps to the cores that the
process may run on, but knows nothing of a control group's quota: its threads would use up the
quota of a period at once and stand still for the rest of it, all of them.

The variables are read once, as torch is imported. What the user has set stays.
"""

import math
import os
from pathlib import Path

COUNT, SPINS = "OMP_NUM_THREADS", "GOMP_SPINCOUNT"
ROUNDS = "1000"  # of spinning, some microseconds; 300,000 where nothing is said
ROOT = Path("/")
_set_here: set[str] = set()  # variables that are ours to change


def set_threads() -> None:
    """For this process and those that it starts; before torch is imported."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault(SPINS, ROUNDS)
    # Else OpenMP's own number: other numbers of threads round sums in other ways.
    if quota() < usable_cores():
        share_threads(1)


def share_threads(processes: int) -> int | None:
    """Threads of each of several processes that are started now; None: the user has said it."""
    return _set_count(max(1, math.ceil(min(usable_cores(), quota())) // processes))


def _set_count(threads: int) -> int | None:
    if COUNT in os.environ and COUNT not in _set_here:
        return None
    _set_here.add(COUNT)
    os.environ[COUNT] = str(threads)
    return threads


def usable_cores(root: Path = ROOT) -> int:
    """Cores that this process may run on; two hardware threads of one core count once, as for MKL.

    Where the system does not say which those are, each counts.
    """
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    cpus = root / "sys/devices/system/cpu"
    names = (cpus / f"cpu{n}/topology/thread_siblings_list" for n in os.sched_getaffinity(0))
    return len({_text(name) or name for name in names})


def quota(root: Path = ROOT) -> float:
    """Cores' worth of time that control groups, version 1 or 2, give to this process; inf: all.

    A group's limit holds for all groups in it, so the least on the way to the root counts.
    """
    limits = [math.inf]
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = root / "sys/fs/cgroup" / ("cpu" if controllers else "")
        group = top / path.lstrip("/")
        # A container may be told its path on the host, where its own group is the root it sees.
        inside = [g for g in (group, *group.parents) if g.is_relative_to(top)]
        limits += [_limit(g) for g in inside if ".." not in g.parts]
    return min(limits)


def _limit(group: Path) -> float:
    """Of one group: `cpu.max` holds quota and period, version 1 a file for each; −1 is no limit."""
    names = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
    words = _text(group / "cpu.max").split() or [_text(group / name).strip() for name in names]
    if len(words) == 2 and all(word.isdecimal() for word in words) and int(words[1]):
        return int(words[0]) / int(words[1])
    return math.inf


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""
