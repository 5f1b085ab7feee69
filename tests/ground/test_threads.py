"""Threads: as many as affinity and control groups give, asleep when they wait, as the user says."""

import math
import os
import subprocess
import sys

import pytest

from helpers.places import ROOT
from ssl_bench import threads
from ssl_bench.threads import COUNT, SPINS, quota, set_threads, share_threads, usable_cores

NO_LIMIT_V1 = {"cpu.cfs_quota_us": "-1\n", "cpu.cfs_period_us": "100000\n"}


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine of so many cores, with hardware threads each, and files of control groups."""
    for name in (COUNT, SPINS, "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(threads, "_set_here", set())
    monkeypatch.setattr(usable_cores, "__defaults__", (tmp_path,))
    monkeypatch.setattr(quota, "__defaults__", (tmp_path,))

    def made(cores, siblings=1, allowed=None, groups="", files=None):
        cpus = cores * siblings
        for cpu in range(cpus):
            folder = tmp_path / f"sys/devices/system/cpu/cpu{cpu}/topology"
            folder.mkdir(parents=True)
            same = ",".join(map(str, range(cpu % cores, cpus, cores)))
            (folder / "thread_siblings_list").write_text(f"{same}\n")
        here = set(range(cpus)) if allowed is None else allowed
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: here, raising=False)
        (tmp_path / "proc/self").mkdir(parents=True)
        (tmp_path / "proc/self/cgroup").write_text(groups)
        for name, text in (files or {}).items():
            path = tmp_path / "sys/fs/cgroup" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    return made


V1 = "4:cpu,cpuacct:/docker/abc\n3:cpuset:/\n"
QUOTAS = [
    ("", {}, math.inf),
    ("0::/\n", {"cpu.max": "max 100000\n"}, math.inf),
    ("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5),
    ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "50000 100000\n"}, 0.5),
    ("0::/../host\n", {"cpu.max": "200000 100000\n"}, 2),
    (V1, {f"cpu/docker/abc/{name}": text for name, text in NO_LIMIT_V1.items()}, math.inf),
    (V1, {"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
    ("3:cpuset:/\n", {"cpu/cpu.cfs_quota_us": "1\n", "cpu/cpu.cfs_period_us": "1\n"}, math.inf),
    ("0::/\n", {"cpu.max": "nonsense"}, math.inf),
    ("0::/\n", {"cpu.max": "5 0"}, math.inf),
]


@pytest.mark.parametrize(("groups", "files", "cores"), QUOTAS)
def test_the_least_quota_on_the_way_to_the_root_counts(machine, groups, files, cores):
    machine(8, groups=groups, files=files)
    assert quota() == cores


def test_hardware_threads_of_one_core_count_once(machine):
    machine(4, siblings=2, allowed={0, 1, 4})
    assert usable_cores() == 2


def test_where_nothing_is_said_of_siblings_each_counts(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 5}, raising=False)
    assert usable_cores(tmp_path) == 2


@pytest.mark.parametrize(
    ("given", "made"), [("50000", "1"), ("100000", "1"), ("250000", "3"), ("800000", None)]
)
def test_a_quota_is_rounded_up_and_only_ever_takes_threads_away(machine, given, made):
    machine(4, groups="0::/\n", files={"cpu.max": f"{given} 100000\n"})
    set_threads()
    assert os.environ.get(COUNT) == made
    assert os.environ[SPINS] == "1000"


@pytest.mark.parametrize(
    ("name", "value"), [(COUNT, "7"), (SPINS, "5"), ("OMP_WAIT_POLICY", "ACTIVE")]
)
def test_what_the_user_has_set_stays(machine, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    machine(4, groups="0::/\n", files={"cpu.max": "100000 100000\n"})
    set_threads()
    assert os.environ[name] == value
    assert (SPINS in os.environ) == (name != "OMP_WAIT_POLICY")
    assert share_threads(2) == (None if name == COUNT else 1)
    assert os.environ[COUNT] == ("7" if name == COUNT else "1")


@pytest.mark.parametrize(("processes", "each"), [(1, 3), (2, 1), (3, 1), (9, 1)])
def test_processes_that_are_started_share_what_there_is(machine, processes, each):
    machine(4, groups="0::/\n", files={"cpu.max": "300000 100000\n"})
    set_threads()
    assert share_threads(processes) == each
    assert os.environ[COUNT] == str(each)


def test_the_library_that_torch_brings_reads_it():
    """GNU's OpenMP prints what it has read as it is loaded."""
    environment = {k: v for k, v in os.environ.items() if k not in (SPINS, "OMP_WAIT_POLICY")}
    code = "from ssl_bench.threads import set_threads; set_threads(); import torch"
    made = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT,
        env=environment | {"OMP_DISPLAY_ENV": "VERBOSE", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert f"{SPINS} = '1000'" in made.stderr
