"""How a run is carried out: devices, processes, checkpoints. Nothing in here changes a result.

torch is imported where it is used: progress, and with it `bench --help`, asks who is first here.
"""

import os
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch
    from lightning_fabric import Fabric

Precision = Literal["auto", "32", "bf16"]
_rank: list[int] = []  # of this process, once Fabric has launched


@dataclass(frozen=True)
class Runtime:
    """`devices` is a number or `auto` (all GPUs, else one CPU process, or what a launcher set)."""

    workers: int = 2
    devices: str = "auto"
    checkpoint_seconds: float = 300
    checkpoint_steps: int | None = None
    feature_memory_mb: int = 1024  # of frozen features kept in memory; above it, on disk
    wait: bool = True  # for a run that another process is at; else Busy is raised

    def fabric(self, precision: Literal["32", "bf16"] = "32") -> "Fabric":
        """Lightning Fabric, launched: torchrun and SLURM are recognised by it."""
        return _launch(self.devices, precision)


def is_main_process() -> bool:
    """Whether this process is the one that prints and writes, whatever launched it.

    Fabric knows once it has launched; before that, what the launcher says is all there is.
    """
    if _rank:
        return _rank[-1] == 0
    # torchrun's and SLURM's ranks count over all machines; Fabric's own children count within one.
    for name in ("RANK", "SLURM_PROCID"):
        if os.environ.get(name):
            return int(os.environ[name]) == 0
    return all(int(os.environ.get(name) or 0) == 0 for name in ("NODE_RANK", "LOCAL_RANK"))


def is_one_of_several() -> bool:
    """Whether a launcher, or Fabric, started several processes of this command."""
    return any(int(os.environ.get(name) or 1) > 1 for name in ("WORLD_SIZE", "SLURM_NTASKS"))


def resolve_precision(precision: Precision) -> Literal["32", "bf16"]:
    """`auto` is bf16 (autocast) where there is CUDA, else 32 bit."""
    import torch

    if precision != "auto":
        return precision
    return "bf16" if torch.cuda.is_available() else "32"


@cache
def _launch(devices: str, precision: str) -> "Fabric":
    import torch
    from lightning_fabric import Fabric
    from lightning_fabric.strategies.ddp import DDPStrategy

    _use_all_bits()
    on_cuda = torch.cuda.is_available()
    launched = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # torchrun's
    count = (torch.cuda.device_count() if on_cuda else launched) if devices == "auto" else devices
    alone = int(count) == 1 and launched == 1
    fabric = Fabric(
        accelerator="cuda" if on_cuda else "cpu",
        devices=int(count),
        num_nodes=int(os.environ.get("SLURM_NNODES", os.environ.get("GROUP_WORLD_SIZE", "1"))),
        # Buffers are equal on all devices (training/devices.py): copied at every forward pass, they
        # would change under the gradients of a network that is called twice, for two views.
        strategy="auto" if alone else DDPStrategy(broadcast_buffers=False),
        precision="bf16-mixed" if precision == "bf16" else "32-true",
    )
    fabric.launch()
    _rank.append(fabric.global_rank)
    return fabric


def _use_all_bits() -> None:
    """32 bit is 32 bit: cuDNN's convolutions would round to TF32's 10 bits of mantissa.

    What autocast computes in bf16 is not touched by it.
    """
    import torch

    torch.backends.cudnn.allow_tf32 = False  # True unless it is set
    torch.backends.cuda.matmul.allow_tf32 = False


def device_name() -> str:
    """The hardware that does the arithmetic, for the record."""
    import torch

    if torch.cuda.is_available():
        return f"cuda: {torch.cuda.get_device_name()}"
    return f"cpu: {torch.get_num_threads()} threads"


def best_device() -> "torch.device":
    """Where evaluations compute, in 32 bit: the GPU if there is one."""
    import torch

    _use_all_bits()
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
