"""What a killed training left: its checkpoint, and the log that goes with it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from ssl_bench.errors import DataError
from ssl_bench.files import write_atomically


def load_checkpoint(path: Path, task: nn.Module) -> Mapping[str, Any] | None:
    """Load the task's weights from a checkpoint, if there is one; returns all it holds."""
    if not path.exists():
        return None
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        task.load_state_dict(saved["task"])
    except Exception as error:  # whatever torch meets in a damaged file
        raise damaged(path, error) from error
    return saved


def load_optimizer(optimizer: Optimizer, state: Mapping[str, Any]) -> None:
    """Take up its memory; ValueError for one of other settings or of another shape."""
    kinds = _kinds(optimizer)
    # How updates are computed is no part of what is learnt: earlier versions fused fewer of them.
    # Not every optimiser has the choice: timm's LARS does not.
    ways = [{k: v for k, v in g.items() if k == "fused"} for g in optimizer.param_groups]
    groups = [{**saved, **way} for saved, way in zip(state["param_groups"], ways, strict=True)]
    # torch checks the number of weights, nothing else.
    optimizer.load_state_dict({**state, "param_groups": groups})
    if kinds != _kinds(optimizer):
        raise ValueError("the settings of an optimiser are of other types")
    for weight, memory in optimizer.state.items():
        # Scalars are counters of steps, whatever the weight's shape.
        for name, tensor in memory.items():
            if not (torch.is_tensor(tensor) and tensor.ndim):
                continue
            if tensor.shape != weight.shape:
                raise ValueError("an optimiser's memory is of another shape than its weights")
            # As the weight lies in memory, which another device or precision may have had
            # otherwise: a fused update goes through both side by side.
            memory[name] = torch.empty_like(weight, dtype=tensor.dtype).copy_(tensor)


def _kinds(optimizer: Optimizer) -> list[dict[str, type]]:
    return [{k: type(v) for k, v in group.items()} for group in optimizer.param_groups]


def damaged(path: Path, error: Exception) -> DataError:
    """The refusal of a checkpoint that cannot be taken up."""
    return DataError(
        f"{path} is damaged ({type(error).__name__}): remove it to start this run anew"
    )


def trim_log(path: Path, step: int) -> None:
    """Drop what was logged after the checkpoint: these steps are done again."""
    if path.exists():
        lines = path.read_text(errors="replace").splitlines(keepends=True)
        try:
            # A line without its end was being written when the process was killed.
            kept = [ln for ln in lines if ln.endswith("\n") and json.loads(ln)["step"] <= step]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise DataError(f"{path} is damaged: remove it") from error
        if kept != lines:
            write_atomically(path, "".join(kept))
