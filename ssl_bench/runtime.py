"""How a run is carried out: devices, processes, checkpoints. Nothing in here changes a result.

torch is imported where it is used: progress, and with it `bench --help`, asks who is first here.
"""

import sys
from ctypes import CDLL
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Literal

from ssl_bench.launch import Launch, describe_launch, find_launch

if TYPE_CHECKING:
    import torch
    from lightning_fabric import Fabric

Precision = Literal["auto", "32", "bf16"]
_joined: list[tuple[int, int]] = []  # rank and number of processes, once they are known


@dataclass(frozen=True)
class Runtime:
    """`devices` is a number or `auto` (all GPUs, else one CPU process, or what a launcher set)."""

    workers: int = 2
    devices: str = "auto"
    checkpoint_seconds: float = 300
    checkpoint_steps: int | None = None
    feature_memory_mb: int | None = None  # of frozen features kept in memory; above it, on disk
    log: tuple[str, ...] = ()  # trackers that hear what log.jsonl says (training/log.py)
    wait: bool = True  # for a run that another process is at; else Busy is raised

    def feature_memory(self) -> int:
        """Bytes of frozen features that stay in memory: what was asked for, a third of a GPU's
        (probes make two copies of a layer), or 1 GiB."""
        if self.feature_memory_mb is not None:
            return self.feature_memory_mb << 20
        device = best_device()
        if device.type != "cuda":
            return 1 << 30
        import torch

        return torch.cuda.mem_get_info(device)[1] // 3

    def fabric(self, precision: Literal["32", "bf16"] = "32") -> "Fabric":
        """Lightning Fabric, launched: the processes of torchrun or srun, or `devices` of its own.

        Raises UsageError where there are other devices, or not all processes.
        """
        return _launch(self.devices, precision)


def is_main_process() -> bool:
    """Whether this process is the one that prints and writes, whatever launched it.

    Fabric knows once it has launched; before that, what a launcher says is all there is.
    """
    return (_joined[-1][0] if _joined else find_launch().rank) == 0


def is_one_of_several() -> bool:
    """Whether a launcher, or Fabric, started several processes that run this command together."""
    return (_joined[-1][1] if _joined else find_launch().size) > 1


def resolve_precision(precision: Precision) -> Literal["32", "bf16"]:
    """`auto` is bf16 (autocast) where there is CUDA, else 32 bit."""
    import torch

    if precision != "auto":
        return precision
    return "bf16" if torch.cuda.is_available() else "32"


def stay_alone() -> None:
    """This process works on its own, whatever has launched it, unless it has met others already."""
    if not _joined:
        _joined.append((0, 1))


@cache
def _launch(devices: str, precision: str) -> "Fabric":
    from ssl_bench.processes import launched_fabric

    _use_all_bits()
    _keep_freed_memory()
    launch = Launch() if devices == "1" else find_launch()
    if launch.rank == 0 and (line := describe_launch(launch)):
        print(line, file=sys.stderr, flush=True)
    fabric = launched_fabric(launch, devices, precision)
    _joined.append((fabric.global_rank, fabric.world_size))
    return fabric


def _use_all_bits() -> None:
    """32 bit is 32 bit: cuDNN's convolutions would round to TF32's 10 bits of mantissa.

    What autocast computes in bf16 is not touched by it.
    """
    import torch

    torch.backends.cudnn.allow_tf32 = False  # True unless it is set
    torch.backends.cuda.matmul.allow_tf32 = False


@cache
def _keep_freed_memory() -> None:
    """Let the C library hand out again what was freed, instead of asking the system each time.

    Maps of some megabytes are made and freed at every step, and glibc gives each back at once: a
    tenth of a step on a CPU goes into pages that come and go. Above a gigabyte it still does; an
    older glibc, which takes no such threshold, does above 32 MiB, the most that it takes.
    """
    mallopt = getattr(CDLL(None), "mallopt", None)  # glibc's
    if mallopt is None:
        return
    # M_MMAP_THRESHOLD; refused, it would stand still at 128 KiB as soon as the other is set.
    if mallopt(-3, 1 << 30) or mallopt(-3, 32 << 20):
        mallopt(-1, (1 << 31) - 1)  # M_TRIM_THRESHOLD


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
    _keep_freed_memory()
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
