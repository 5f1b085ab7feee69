"""Lightning Fabric over the processes that were launched, or that are launched now.

Fabric is always told which they are. Left to itself it takes a shell within a SLURM job for one of
many processes and waits for the others for ever.
"""

import atexit
import os
import sys
import threading
from datetime import timedelta

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.strategies.ddp import DDPStrategy
from torch.distributed.rendezvous import rendezvous

from ssl_bench.errors import UsageError, counted
from ssl_bench.launch import LAUNCHER, Launch
from ssl_bench.threads import share_threads

MEETING = timedelta(minutes=5)  # for all processes of a launcher to be there


class _Children(LightningEnvironment):
    """Processes of one machine that the first one starts, whatever older variables say."""

    def __init__(self, launch: Launch) -> None:
        super().__init__()
        self.launch = launch

    @property
    def creates_processes_externally(self) -> bool:
        return self.launch.by == "bench"

    @property
    def main_address(self) -> str:
        return self.launch.address

    @property
    def main_port(self) -> int:
        return self.launch.port if self.launch.by == "bench" else super().main_port

    def local_rank(self) -> int:
        return self.launch.local_rank

    def node_rank(self) -> int:
        return 0


class _Launched(ClusterEnvironment):
    """Processes that torchrun or srun has started."""

    def __init__(self, launch: Launch) -> None:
        super().__init__()
        self.launch = launch

    @property
    def creates_processes_externally(self) -> bool:
        return True

    @property
    def main_address(self) -> str:
        return self.launch.address

    @property
    def main_port(self) -> int:
        return self.launch.port

    @staticmethod
    def detect() -> bool:
        return False

    def world_size(self) -> int:
        return self.launch.size

    def set_world_size(self, size: int) -> None:
        pass

    def global_rank(self) -> int:
        return self.launch.rank

    def set_global_rank(self, rank: int) -> None:
        pass

    def local_rank(self) -> int:
        return self.launch.local_rank

    def node_rank(self) -> int:
        return (self.launch.rank - self.launch.local_rank) // self.launch.local_size


def launched_fabric(launch: Launch, devices: str, precision: str) -> Fabric:
    """Fabric, launched, on `devices` (a number for each machine, or `auto`).

    Raises UsageError where there are other devices, other processes, or not all of them.
    """
    on_cuda = torch.cuda.is_available()
    external = launch.by in ("torchrun", "srun") and launch.size > 1
    count = _count(launch, devices, on_cuda)
    if on_cuda and count > torch.cuda.device_count():
        seen = torch.cuda.device_count()
        raise UsageError(
            f"{count} processes on this machine, which see {seen} GPU(s): one each is needed; "
            f"--devices {seen}, or all GPUs for every task (srun --gpus-per-node)"
        )
    several = external or count > 1
    fabric = Fabric(
        accelerator="cuda" if on_cuda else "cpu",
        devices=count,
        num_nodes=launch.machines if external else 1,
        # Buffers are equal on all devices (training/devices.py): copied at every forward pass, they
        # would change under the gradients of a network that is called twice, for two views.
        strategy=DDPStrategy(broadcast_buffers=False) if several else "auto",
        precision="bf16-mixed" if precision == "bf16" else "32-true",
        plugins=[_Launched(launch) if external else _Children(launch)],
    )
    if external:
        _meet(launch, on_cuda)
    if external or launch.by == "bench":
        fabric.launch()
    else:
        _launch_children(fabric, count)
    return fabric


def _launch_children(fabric: Fabric, count: int) -> None:
    """If there are to be any: only they, and nothing that runs later, shall take us for theirs."""
    os.environ.pop("MASTER_PORT", None)  # another job's: a free one is found
    os.environ[LAUNCHER] = str(os.getpid())
    if count > 1 and (threads := share_threads(count)):
        torch.set_num_threads(threads)  # of this process; the others read the variable
    try:
        fabric.launch()
    finally:
        del os.environ[LAUNCHER]


def _count(launch: Launch, devices: str, on_cuda: bool) -> int:
    """Processes on this machine."""
    if launch.size > 1:
        if devices not in ("auto", str(launch.local_size)):
            raise UsageError(
                f"--devices {devices}, but {launch.by} started {launch.local_size} processes on "
                "this machine: leave it out, or pass --devices 1 for processes on their own"
            )
        return launch.local_size
    if devices == "auto":
        return torch.cuda.device_count() if on_cuda else 1
    return int(devices)


def _meet(launch: Launch, on_cuda: bool) -> None:
    """The process group, as soon as all are there. UsageError where some do not come."""
    os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = launch.address, str(launch.port)
    waited = threading.Timer(10, _say_waiting, [launch])
    waited.daemon = True
    waited.start()
    try:
        # Fabric would wait half an hour, which is right for a step and wrong for a start.
        met = rendezvous("env://", launch.rank, launch.size, timeout=MEETING)
        store, rank, size = next(met)
        backend, device = ("nccl", torch.device("cuda", launch.local_rank)) if on_cuda else (
            "gloo", None)  # fmt: skip
        torch.distributed.init_process_group(
            backend, store=store, rank=rank, world_size=size, device_id=device
        )
    except (RuntimeError, ValueError) as error:  # of the store, the network or a time that is up
        raise UsageError(_missing(launch, error)) from error
    finally:
        waited.cancel()
    atexit.register(torch.distributed.destroy_process_group)  # left to the end, it may abort


def _say_waiting(launch: Launch) -> None:
    if launch.rank == 0:
        others = f"{counted(launch.size - 1, 'other process')} of {launch.by}"
        print(f"waiting for {others}, for {MEETING.seconds // 60} min", file=sys.stderr, flush=True)


def _missing(launch: Launch, error: Exception) -> str:
    variables = {
        "srun": "SLURM_STEP_ID, SLURM_PROCID and SLURM_NTASKS",
        "torchrun": "RANK, WORLD_SIZE and MASTER_ADDR",
    }
    said = str(error).strip().splitlines()
    return (
        f"the {launch.size} processes that {launch.by} started did not meet at "
        f"{launch.address}:{launch.port} ({said[0] if said else type(error).__name__}): start all "
        f"of them with {launch.by}, or pass --devices 1 if {variables[launch.by]} are left over"
    )
