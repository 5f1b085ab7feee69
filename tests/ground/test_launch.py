"""Who launched this process: what is believed of the environment, and what is not."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import ssl_bench
from ssl_bench import launch
from ssl_bench.launch import Launch, describe_launch, find_launch, lost_connection

TORCHRUN = {"RANK": "9", "WORLD_SIZE": "16", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "8",
            "MASTER_ADDR": "gpu1", "MASTER_PORT": "29500"}  # fmt: skip
# A batch script and the shells of salloc have these, too.
JOB = {"SLURM_JOB_ID": "1234567", "SLURM_NTASKS": "16", "SLURM_NNODES": "2", "SLURM_PROCID": "0",
       "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_NODELIST": "gpu[07-09,11]",
       "SLURM_JOB_NAME": "train.sh"}  # fmt: skip
SRUN = {**JOB, "SLURM_STEP_ID": "0", "SLURM_PROCID": "9", "SLURM_LOCALID": "1"}
OWN = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "4", "NODE_RANK": "0", "LOCAL_RANK": "1",
       "WORLD_SIZE": "2"}  # fmt: skip
SALLOC = {"SLURM_JOB_NAME": "interactive"}

ALONE = {
    "nothing": {},
    "a world without ranks": {"WORLD_SIZE": "4"},
    "ranks without an address": {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1"},
    "a rank beyond the world": {**TORCHRUN, "RANK": "16"},
    "what is no number": {**TORCHRUN, "RANK": "one"},
    "children of another process": {**OWN, launch.LAUNCHER: str(os.getpid())},
    "children of no process": OWN,
    "a batch script without srun": JOB,
    "salloc": {**JOB, **SALLOC},
    "the shell that salloc starts by srun": {**JOB, **SALLOC, "SLURM_STEP_ID": "4294967290"},
    "a shell started by srun": {**SRUN, "SLURM_JOB_NAME": "bash", "SLURM_PROCID": "0"},
    "srun -n 1": {**SRUN, "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"},
    "mpirun": {"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "1", "PMI_SIZE": "4"},
}


@pytest.mark.parametrize("environ", ALONE.values(), ids=ALONE)
def test_what_no_launcher_sets_is_a_process_on_its_own(environ, monkeypatch) -> None:
    monkeypatch.setattr(os, "environ", environ)
    assert find_launch() == Launch()


def test_torchrun_counts_over_all_machines(monkeypatch) -> None:
    monkeypatch.setattr(os, "environ", {**SRUN, **TORCHRUN})  # torchrun under SLURM, too
    found = find_launch()
    assert found == Launch("torchrun", 9, 16, 1, 8, "gpu1", 29500)
    assert found.machines == 2


@pytest.mark.parametrize(
    "more", [{}, {**SALLOC, "SLURM_STEP_NUM_TASKS": "16"}], ids=["batch", "within salloc"]
)
def test_srun_is_believed_where_it_started_a_step_of_several(more, monkeypatch) -> None:
    monkeypatch.setattr(os, "environ", {**SRUN, **more})
    found = find_launch()
    assert (found.by, found.rank, found.size) == ("srun", 9, 16)
    assert (found.local_rank, found.local_size, found.machines) == (1, 8, 2)
    assert found.address == "gpu07"


def test_steps_of_a_job_meet_at_ports_of_their_own(monkeypatch) -> None:
    ports = set()
    for step in range(20):
        monkeypatch.setattr(os, "environ", {**SRUN, "SLURM_STEP_ID": str(step)})
        ports.add(find_launch().port)
    assert len(ports) == 20
    assert all(port in launch.PORTS for port in ports)


def test_children_are_known_by_their_parent(monkeypatch) -> None:
    monkeypatch.setattr(os, "environ", {**OWN, launch.LAUNCHER: str(os.getppid()), "RANK": "0"})
    assert find_launch() == Launch("bench", 1, 2, 1, 2, "127.0.0.1", 4)


@pytest.mark.parametrize(
    ("environ", "said"),
    [({}, ""), (TORCHRUN, ""), (JOB, "srun --ntasks-per-node"), (ALONE["mpirun"], "MPI started 4"),
     (SRUN, "srun started 16 processes on 2 machine")],
)  # fmt: skip
def test_what_is_believed_is_said_where_it_may_be_doubted(environ, said, monkeypatch) -> None:
    monkeypatch.setattr(os, "environ", environ)
    line = describe_launch(find_launch())
    assert said in line
    assert bool(said) is bool(line)


def test_processes_that_do_not_come_are_an_error_with_the_remedy() -> None:
    """A rank of two, and nobody else there."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    code = """
from datetime import timedelta
from ssl_bench import processes
from ssl_bench.runtime import Runtime
processes.MEETING = timedelta(seconds=1)
Runtime().fabric()
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(ssl_bench.__file__).parents[1]),
                   "SLURM_JOB_ID": "1", "SLURM_NTASKS": "2", "SLURM_STEP_ID": "0",
                   "SLURM_JOB_NAME": "train", "SLURM_PROCID": "0", "MASTER_ADDR": "127.0.0.1",
                   "MASTER_PORT": port}  # fmt: skip
    call = [sys.executable, "-c", code]
    done = subprocess.run(
        call, env=environment, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL
    )
    said = done.stderr.splitlines()[-1]
    assert done.returncode == 1
    assert "UsageError: the 2 processes that srun started did not meet" in said
    assert "--devices 1" in said
    assert "SLURM_NTASKS" in said


@pytest.mark.parametrize(
    ("text", "known"),
    [("[gloo/pair.cc] Connection closed by peer [127.0.0.1]:4", True), ("size mismatch", False)],
)
def test_the_end_of_another_process_is_one_line(text, known, monkeypatch) -> None:
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    assert bool(lost_connection(RuntimeError(text))) is known
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: False)
    assert lost_connection(RuntimeError(text)) == ""
