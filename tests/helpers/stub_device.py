"""A device that needs no hardware: the CPU's arithmetic behind the rules of a GPU.

Tensors of the stub device say that they are on `meta`, hold their values in the CPU's memory and
refuse to meet the CPU's own tensors as CUDA's do: only scalars, copies and indices may. So a whole
training or evaluation runs with true numbers, and a tensor that was left on the CPU raises at the
operation that would raise on a GPU.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.accelerators.cpu import CPUAccelerator
from lightning_fabric.strategies.single_device import SingleDeviceStrategy
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map_only

from ssl_bench import runtime

STUB = torch.device("meta")
aten = torch.ops.aten
COPIES = {aten.copy_, aten._to_copy}
INDEXING = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_, aten._unsafe_index}


class OnStub(Tensor):
    """A tensor of the stub device; `numbers` are on the CPU."""

    numbers: Tensor

    @staticmethod
    def __new__(cls, values: Tensor) -> "OnStub":
        made = Tensor._make_wrapper_subclass(
            cls, values.shape, values.stride(), values.storage_offset(),
            dtype=values.dtype, device=STUB, requires_grad=values.requires_grad,
        )  # fmt: skip
        made.numbers = values
        return made

    def __reduce_ex__(self, protocol: Any) -> Any:  # in a file it is what a GPU's tensor would be
        return self.numbers.__reduce_ex__(protocol)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return compute(func, args, kwargs or {})


def compute(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """One operation: where it is done follows from its tensors, or from `device`."""
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    on_stub = any(isinstance(tensor, OnStub) for tensor in tensors)
    _check(func, args, tensors, on_stub)
    device = kwargs.get("device")
    there = on_stub if device is None else torch.device(device).type == STUB.type
    values, settings = tree_map_only(OnStub, lambda t: t.numbers, (args, kwargs))
    if device is not None:
        settings = {**settings, "device": torch.device("cpu")}
    found = func(*values, **settings)
    if not there:
        return found
    found = tree_map_only(Tensor, OnStub, found)
    return return_and_correct_aliasing(func, args, kwargs, found) if on_stub else found


def _check(func: Any, args: Any, tensors: list[Tensor], on_stub: bool) -> None:
    """RuntimeError where CUDA would refuse to mix devices."""
    if not on_stub or func.overloadpacket in COPIES:
        return
    if func.overloadpacket in INDEXING:  # a GPU's tensor takes indices from the CPU, not vice versa
        tensors = [args[0]]
    if any(not isinstance(tensor, OnStub) and tensor.ndim for tensor in tensors):
        raise RuntimeError(f"{func}: expected all tensors to be on the stub device")


class _Factories(TorchDispatchMode):
    """Brings tensors that are made on, or moved to, the stub device here."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return compute(func, args, kwargs or {})


class _Literals(TorchFunctionMode):
    """Calls that are done before any operation could be seen: from numbers, and to numbers."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        device = kwargs.get("device")
        if func is Tensor.tolist and isinstance(args[0], OnStub):
            return args[0].numbers.tolist()
        if func is Tensor.new_tensor and isinstance(args[0], OnStub):
            settings = {"dtype": args[0].dtype, "device": STUB} | kwargs
            return self.__torch_function__(torch.tensor, types, args[1:], settings)
        if func not in (torch.tensor, torch.as_tensor) or device is None:
            return func(*args, **kwargs)
        return func(*args, **kwargs | {"device": "cpu"}).to(device)


def _autocast(device: str, **settings: Any) -> Any:
    """There is none for `meta`."""
    return torch.amp.autocast("cpu" if device == STUB.type else device, **settings)


class _Accelerator(CPUAccelerator):
    def setup_device(self, device: torch.device) -> None:
        pass


def stub_fabric() -> Fabric:
    """Lightning Fabric, as it is, on the stub device."""
    fabric = Fabric(strategy=SingleDeviceStrategy(device=STUB, accelerator=_Accelerator()))
    fabric.launch()
    return fabric


@contextmanager
def stub_device() -> Iterator[None]:
    """Within it the stub device computes."""
    before = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    autocast = mock.patch.object(torch, "autocast", _autocast)
    fused = mock.patch(
        "torch.optim.optimizer._get_fused_kernels_supported_devices", return_value=["meta"]
    )
    try:
        with autocast, fused, _Factories(), _Literals():
            yield
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(before)


def use_stub_device(patch: pytest.MonkeyPatch) -> None:
    """From now on trainings and evaluations of this process compute there."""
    patch.setattr(runtime, "_launch", lambda devices, precision: stub_fabric())
    found = runtime.best_device
    for module in list(sys.modules.values()):  # it is imported by name
        if getattr(module, "best_device", None) is found:
            patch.setattr(module, "best_device", lambda: STUB)
