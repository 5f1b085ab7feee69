"""How a run is carried out: devices, processes, checkpoints. Nothing in here changes a result."""

import os
from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch
from lightning_fabric import Fabric

Precision = Literal["auto", "32", "bf16"]


@dataclass(frozen=True)
class Runtime:
    """`devices` is a number or `auto` (all GPUs, else one CPU process, or what a launcher set)."""

    workers: int = 2
    devices: str = "auto"
    checkpoint_seconds: float = 300
    checkpoint_steps: int | None = None
    feature_memory_mb: int = 1024  # of frozen features kept in memory; above it, on disk
    wait: bool = True  # for a run that another process is at; else Busy is raised

    def fabric(self, precision: Literal["32", "bf16"] = "32") -> Fabric:
        """Lightning Fabric, launched: torchrun and SLURM are recognised by it."""
        return _launch(self.devices, precision)


def resolve_precision(precision: Precision) -> Literal["32", "bf16"]:
    """`auto` is bf16 (autocast) where there is CUDA, else 32 bit."""
    if precision != "auto":
        return precision
    return "bf16" if torch.cuda.is_available() else "32"


@cache
def _launch(devices: str, precision: str) -> Fabric:
    on_cuda = torch.cuda.is_available()
    launched = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # torchrun's
    count = (torch.cuda.device_count() if on_cuda else launched) if devices == "auto" else devices
    fabric = Fabric(
        accelerator="cuda" if on_cuda else "cpu",
        devices=int(count),
        num_nodes=int(os.environ.get("SLURM_NNODES", os.environ.get("GROUP_WORLD_SIZE", "1"))),
        strategy="auto" if int(count) == 1 and launched == 1 else "ddp",
        precision="bf16-mixed" if precision == "bf16" else "32-true",
    )
    fabric.launch()
    return fabric


def device_name() -> str:
    """The hardware that does the arithmetic, for the record."""
    if torch.cuda.is_available():
        return f"cuda: {torch.cuda.get_device_name()}"
    return f"cpu: {torch.get_num_threads()} threads"


def best_device() -> torch.device:
    """Where evaluations compute: the GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
