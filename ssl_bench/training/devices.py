"""A task on its devices: each sees its share of the batch, and together they are one.

Gradients are averaged by DDP. What else depends on the whole batch is shared here: tensors that a
loss compares (`gather`), the statistics of batch normalisation, and what a task keeps of the set.
So equal global batches give equal losses and gradients on any number of devices, up to rounding.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from lightning_fabric.wrappers import is_wrapped
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from ssl_bench.errors import UsageError

WAITED_FOR = "Expected to have finished reduction in the prior iteration"
ONE_VALUE = "Expected more than 1 value per channel when training"


def place(task: nn.Module, fabric: Fabric, *, channels_last: bool = True) -> None:
    """Move the whole task; its children with weights to learn average their gradients.

    Channels lie last but for a GPU's 32 bit, in which cuDNN would turn every map twice.
    """
    own = [name for name, weight in task.named_parameters(recurse=False) if weight.requires_grad]
    if own and fabric.world_size > 1:  # no child: each device would learn a weight of its own
        raise UsageError(
            f"{type(task).__name__}.{own[0]} must be in a child module to learn on several devices"
        )
    task.to(fabric.device)  # buffers of its own belong to no child
    for name, child in task.named_children():
        if channels_last:
            child.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if any(p.requires_grad for p in child.parameters()):
            with warnings.catch_warnings():  # that lightning-fabric says a word of torch's past
                warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated")
                setattr(task, name, fabric.setup_module(child))


def attend_in_products(task: nn.Module) -> None:
    """Have timm's blocks multiply queries, keys and values one by one, the library's own other way.

    In bf16 on a CPU torch's fused attention is the slower one where gradients are to come (a block
    takes 1.2 to 1.55 times as long, docs/performance.md); in 32 bit it is the faster.
    """
    for block in task.modules():
        if hasattr(block, "fused_attn"):
            cast(Any, block).fused_attn = False


@contextmanager
def saying_what_is_missing(task: nn.Module) -> Iterator[None]:
    """UsageError for what torch says of a step in its own words.

    Of a single value a channel, which batch normalisation makes nothing of; and of a weight that no
    loss reaches, with its name, for which DistributedDataParallel waits a step later.
    """
    try:
        yield
    except ValueError as error:
        if ONE_VALUE not in str(error):
            raise
        raise UsageError(
            "batch normalisation takes its statistics over several values of each channel, and a "
            "step has one: raise --batch-size, or --image-size"
        ) from error
    except RuntimeError as error:
        if WAITED_FOR not in str(error):
            raise
        learning = {n: each for n, each in task.named_parameters() if each.requires_grad}
        names = [_own(name) for name, each in learning.items() if each.grad is None]
        if len(names) == len(learning):  # a method that has let go of the gradients of all
            names = [f"some weights of {type(task).__name__}"]
        raise UsageError(
            f"no loss reaches {', '.join(names[:3])}{' …' * (len(names) > 3)}, for whose gradients "
            "several devices wait: `learn_up_to(encoder, layer, image_size)` takes out what stands "
            "behind a layer (docs/extend.md), `requires_grad_(False)` what else does not learn; "
            "--devices 1 trains as it is"
        ) from error


def _own(name: str) -> str:
    """A weight's name without the wrappers around its module."""
    return ".".join(part for part in name.split(".") if part not in ("_forward_module", "module"))


def seed_generators(seed: int, device: torch.device) -> None:
    """What torch.manual_seed does for the CPU and this device.

    Itself, it prepares seeds for all kinds of devices, and formats the stack for each that is not
    in use: several times what the rest of the loop costs.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)


def unwrap(task: nn.Module) -> None:
    """The task's own children again."""
    for name, child in task.named_children():
        if is_wrapped(child):
            setattr(task, name, child.module)


def gather(fabric: Fabric, tensor: Tensor) -> Tensor:
    """(B, …) of this device -> (D·B, …) of all D, in the order of the global batch.

    Gradients flow back to the device that a row came from, summed over the losses of all; DDP then
    takes the mean over the devices. So a loss may be that of this device's rows or of all rows, as
    long as its mean over the devices is the loss of the whole batch.
    """
    if fabric.world_size == 1:
        return tensor
    # A sum with zeros of the others: PyTorch's all_gather has no gradients.
    rows = tensor.new_zeros(fabric.world_size, *tensor.shape)
    rows[fabric.global_rank] = tensor
    return cast(Tensor, _Sum.apply(rows)).flatten(0, 1)


def copy_buffers(task: nn.Module, fabric: Fabric) -> None:
    """What the first process keeps in buffers, all of them keep."""
    if fabric.world_size > 1:
        for buffer in task.buffers():
            torch.distributed.broadcast(buffer, 0)


def shared_statistics(fabric: Fabric) -> AbstractContextManager[object]:
    """Within, batch normalisation that trains takes its statistics over the batch of all devices.

    Whatever library its module comes from: the function is replaced, not the module. PyTorch's
    SyncBatchNorm would do for its own modules, on GPUs.
    """
    return nullcontext() if fabric.world_size == 1 else _SharedStatistics(fabric.world_size)


class _SharedStatistics(TorchFunctionMode):
    def __init__(self, devices: int) -> None:
        super().__init__()
        self.devices = devices

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        known = kwargs or {}
        if func is F.batch_norm and (known.get("training") or (len(args) > 5 and args[5])):
            return self._batch_norm(*args, **known)
        return func(*args, **known)

    def _batch_norm(
        self,
        input: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = True,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        """As torch.nn.functional.batch_norm on the global batch, of which all have equal shares."""
        found, mean, variance = _BatchNorm.apply(input, weight, bias, eps, self.devices)
        if running_mean is not None and running_var is not None:
            count = input.numel() // input.shape[1] * self.devices
            running_mean.lerp_(mean, momentum)
            running_var.lerp_(variance * count / (count - 1), momentum)  # unbiased
        return cast(Tensor, found)


class _BatchNorm(torch.autograd.Function):
    """Normalised maps, and the mean and variance over all devices, which have no gradients.

    torch's own kernels for running statistics do most of the passes over the maps, and keep nothing
    but their input: what autograd makes of the formula takes four times as long.
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, devices: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        over, shape = [0, *range(2, x.ndim)], [1, -1, *[1] * (x.ndim - 2)]
        wide = x if x.dtype == torch.float64 else x.float()
        mean = _total(wide.mean(over)) / devices
        # After the mean: no cancellation. torch.var_mean takes ten times as long.
        variance = _total((wide - mean.view(shape)).square().mean(over)) / devices
        ctx.save_for_backward(x, weight, mean, variance)
        ctx.eps, ctx.devices = eps, devices
        ctx.mark_non_differentiable(mean, variance)
        return F.batch_norm(x, mean, variance, weight, bias, False, 0.0, eps), mean, variance

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:  # type: ignore[override]
        """As Ioffe and Szegedy (arXiv 1502.03167, section 3) with sums over all devices."""
        x, weight, mean, variance = ctx.saved_tensors
        direct, by_weight, by_bias = torch.ops.aten.native_batch_norm_backward(
            gradients[0].to(x.dtype), x, weight, mean, variance, None, None, False, ctx.eps,
            [True, True, True],
        )  # fmt: skip
        count = x.numel() // x.shape[1] * ctx.devices
        sums = _total(torch.stack([by_bias, by_weight])) / count
        scale = torch.rsqrt(variance + ctx.eps)
        factor = -scale if weight is None else -scale * weight
        slope = factor * scale * sums[1]
        shape = [1, -1, *[1] * (x.ndim - 2)]
        centred = x.to(mean.dtype) - mean.view(shape)
        offset = (factor * sums[0]).view(shape)
        found = torch.addcmul(offset, centred, slope.view(shape)).add_(direct)
        _, has_weight, has_bias, *_ = ctx.needs_input_grad
        learnt = by_weight if has_weight else None, by_bias if has_bias else None
        return found.to(x.dtype), *learnt, None, None


def _total(tensor: Tensor) -> Tensor:
    """Summed over the devices."""
    total = tensor.clone()
    torch.distributed.all_reduce(total)
    return total


class _Sum(torch.autograd.Function):
    """Of a tensor over the devices; of its gradients, as it stands in the losses of all."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        return _total(tensor)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return _total(gradient)
