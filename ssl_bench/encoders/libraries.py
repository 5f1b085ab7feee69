"""What the encoders of timm and torchvision share: one line for what a library cannot do."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

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
