"""What encoders around other people's modules share: maps by hooks, one line for what fails."""

import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ssl_bench.errors import BenchError, UsageError, plain


@contextmanager
def refusal(arch: str, size: int, own: int, loading: bool = False) -> Iterator[None]:
    """Whatever a library raises becomes one line; what disk and network raise stays as it is.

    `loading`: weights may come from a network, and RuntimeError is the libraries' for those that
    cannot be had.
    """
    library = arch.partition(":")[0]
    try:
        yield
    except (BenchError, OSError, MemoryError):
        raise
    except Exception as error:
        if loading and isinstance(error, RuntimeError):
            raise
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.line for frame in frames if f"/{library}/" in frame.filename]
        why = str(error).strip() or (lines or [None])[-1] or type(error).__name__  # bare assertions
        why = why.splitlines()[0]
        at = f"at {size} px" if size == own else f"at {size} px (its own size is {own} px)"
        raise UsageError(f"{arch} cannot be used {at}: {plain(why)[:200]}") from error


class _Done(Exception):
    """All layers that are asked for have been computed."""


def run_up_to(
    model: nn.Module,
    images: Tensor,
    layers: Iterable[str],
    hook: Callable[[str, Callable[[str, Any], None]], RemovableHandle],
) -> dict[str, Any]:
    """What `layers` give; nothing runs behind the last of them.

    `hook(layer, note)` hooks a part of `model` so that note(layer, map) is called by it.
    """
    wanted, maps = set(layers), dict[str, Any]()

    def note(layer: str, given: Any) -> None:
        maps[layer] = given
        if len(maps) == len(wanted):
            raise _Done

    with ExitStack() as stack:
        for layer in wanted:
            stack.callback(hook(layer, note).remove)
        with suppress(_Done):
            model(images)
    return maps
