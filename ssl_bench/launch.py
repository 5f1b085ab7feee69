"""By whom this process was launched, and as which of how many: read from the environment, doubted.

Variables of launchers are left over in shells, batch scripts and children of other jobs. Several
processes are believed only where a launcher sets what it sets for each process that it starts:

    torchrun   RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT, all of them
    srun       SLURM_STEP_ID beside SLURM_PROCID, of a step of several tasks that is no shell
    bench      the children that `--devices` starts: their parent's number is in LAUNCHER

All else (a batch script without srun, salloc, mpirun) is a process on its own, and `--devices 1` is
one wherever it is started.
"""

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ssl_bench.errors import counted

LAUNCHER = "SSL_BENCH_LAUNCHER"  # the process that has started others of its command
SHELLS = {"", "interactive", "bash", "sh", "zsh", "dash", "ksh", "tcsh", "csh", "fish"}
INTERACTIVE_STEP = 0xFFFFFFFA  # SLURM's number for salloc's shell; those above are special, too
PORTS = range(15_000, 25_000)  # of which a job step takes one


@dataclass(frozen=True)
class Launch:
    """This process is number `rank` of `size`, and number `local_rank` of `local_size` here."""

    by: Literal["nobody", "torchrun", "srun", "bench"] = "nobody"
    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    address: str = "127.0.0.1"  # of the first process
    port: int = 0

    @property
    def machines(self) -> int:
        """How many there are."""
        return -(-self.size // self.local_size)


def find_launch() -> Launch:
    """What is believed of what the environment says."""
    env = os.environ
    return _of_bench(env) or _of_torchrun(env) or _of_srun(env) or Launch()


def describe_launch(launch: Launch) -> str:
    """What is believed, in a line, where launchers that mean something else may be at work."""
    env = os.environ
    if launch.by == "bench":
        return ""
    if launch.by != "nobody" and launch.size > 1:
        where = f"{launch.size} processes on {counted(launch.machines, 'machine')}"
        return f"SLURM: {launch.by} started {where}" if "SLURM_JOB_ID" in env else ""
    ranks = (_number(env, name) for name in ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE"))
    copies = max((count or 1 for count in ranks), default=1)
    if "SLURM_JOB_ID" in env:
        return (
            "SLURM: one process, on its own; several train together if srun starts them: "
            "srun --ntasks-per-node N bench …"
        )
    if copies > 1:
        return (
            f"MPI started {copies} processes, and each is on its own; several train together if "
            "torchrun or srun starts them"
        )
    return ""


def _of_bench(env: Mapping[str, str]) -> Launch | None:
    if _number(env, LAUNCHER) != os.getppid():
        return None
    rank, size = _number(env, "LOCAL_RANK"), _number(env, "WORLD_SIZE")
    if rank is None or size is None:
        return None
    address, port = env.get("MASTER_ADDR", ""), _number(env, "MASTER_PORT")
    return Launch("bench", rank, size, rank, size, address, port or 0)


def _of_torchrun(env: Mapping[str, str]) -> Launch | None:
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT")
    rank, size, local_rank, port = (_number(env, name) for name in names)
    address = env.get("MASTER_ADDR")
    if rank is None or size is None or local_rank is None or port is None or not address:
        return None
    local_size = _number(env, "LOCAL_WORLD_SIZE") or size // (_number(env, "GROUP_WORLD_SIZE") or 1)
    if not rank < size or not local_rank < local_size:
        return None
    return Launch("torchrun", rank, size, local_rank, local_size, address, port)


def _of_srun(env: Mapping[str, str]) -> Launch | None:
    rank, step = _number(env, "SLURM_PROCID"), _number(env, "SLURM_STEP_ID")
    # A step's own number of tasks; SLURM_NTASKS is the job's in a shell that salloc gave.
    own, size = _number(env, "SLURM_STEP_NUM_TASKS"), _number(env, "SLURM_NTASKS")
    size = own or size
    if rank is None or step is None or size is None or not rank < size or size < 2:
        return None
    # srun within salloc keeps the shell's name: then the step's own number is there, too.
    shell = own is None and env.get("SLURM_JOB_NAME", "") in SHELLS
    typed = sys.stdin is not None and not sys.stdin.closed and sys.stdin.isatty()
    if typed or shell or step >= INTERACTIVE_STEP:
        return None
    machines = _number(env, "SLURM_STEP_NUM_NODES") or _number(env, "SLURM_NNODES") or 1
    local_size = -(-size // machines)
    local_rank = _number(env, "SLURM_LOCALID")
    local_rank = rank % local_size if local_rank is None else local_rank
    nodes = env.get("SLURM_STEP_NODELIST") or env.get("SLURM_NODELIST") or "127.0.0.1"
    address = env.get("MASTER_ADDR") or _first_host(nodes)
    # All processes must come to the same one, and the steps of a job to different ones.
    chosen = PORTS[(31 * (_number(env, "SLURM_JOB_ID") or 0) + step) % len(PORTS)]
    port = _number(env, "MASTER_PORT") or chosen
    return Launch("srun", rank, size, local_rank, local_size, address, port)


def _first_host(nodes: str) -> str:
    """Of SLURM's notation: `gpu[07-09,11],cpu1` -> `gpu07`."""
    first = re.match(r"([^\[,\s]+)(?:\[([^\],-]+)[^\]]*\])?([^\[,\s]*)", nodes)
    return "".join(part or "" for part in first.groups()) if first else nodes


def _number(env: Mapping[str, str], name: str) -> int | None:
    text = env.get(name, "")
    return int(text) if re.fullmatch("[0-9]{1,12}", text, re.ASCII) else None


def lost_connection(error: BaseException) -> str:
    """A line for an error that another process's end has caused here; empty for all others."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.distributed.is_initialized():
        return ""
    if not re.search(r"(?i)connection (closed|reset|refused)|timed out|nccl|gloo", str(error)):
        return ""
    return "another process of this run has ended or does not answer: what it said tells why"
