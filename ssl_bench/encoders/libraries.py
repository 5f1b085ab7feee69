"""What encoders around other people's modules share: maps by hooks, one line for what fails."""

import re
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from ssl_bench.errors import BenchError, UsageError, plain
from ssl_bench.progress import say


@contextmanager
def refusal(
    arch: str, size: int, own: int, loading: bool = False, option: str = ""
) -> Iterator[None]:
    """Whatever a library raises becomes one line; what disk and network raise stays as it is.

    `loading`: weights may come from a network, and RuntimeError is the libraries' for those that
    cannot be had. `option` is what another size can be asked for by.
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
        at = f"at {size} px ({option}, of images of {own} px)" if option else at
        raise UsageError(f"{arch} cannot be used {at}: {plain(why)[:200]}") from error


def check_patches(arch: str, size: int, patch: int) -> None:
    """UsageError where images of `size` px are not whole patches: what is over is never seen.

    Libraries say so of some of their networks only.
    """
    if rest := size % patch:
        raise UsageError(
            f"{arch} takes an --image-size that patches of {patch} px fill, such as "
            f"{size - rest + patch}, not {size}"
        )


def local_path(text: str) -> Path:
    """A path that is asked for, `~` expanded; UsageError for a user that there is not."""
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise UsageError(f"{text}: {error}") from error


def intended(text: str) -> str:
    """What a name or a file is as an encoder, timm:resnet18 of resnet18; empty if nobody knows."""
    path = local_path(text)
    if path.is_file():
        others = "" if path.suffix == ".safetensors" else f"timm:NAME --weights {text}"
        return {".py": f"file:{text}:build", ".onnx": f"onnx:{text}"}.get(path.suffix, others)
    if path.is_dir() or (path.parent.name and path.parent.is_dir()):
        return f"hf:{text}" if (path / "config.json").is_file() else ""
    import timm
    from torchvision import models

    name = text.removeprefix("timm/")
    found = [f"timm:{name}"] if timm.is_model(name) else []
    found += [f"torchvision:{name}"] if name in models.list_models(module=models) else []
    is_repository = not found and re.fullmatch(r"[\w.-]+/[\w.-]+", text)
    return f"hf:{text}" if is_repository else " or ".join(found)


def say_assumed(arch: str, *, normalization: bool, image_size: bool) -> None:
    """Warn of what is assumed where nothing says it: ImageNet's mean and deviation, 224 px."""
    wanted = {"its normalisation": normalization, "its image size": image_size}
    values = {"its normalisation": "ImageNet's", "its image size": "224 px"}
    missing = [name for name, is_missing in wanted.items() if is_missing]
    if missing:
        taken = " and ".join(values[name] for name in missing)
        say(f"warning: {arch} does not say {' and '.join(missing)}: {taken} assumed")


class _Done(Exception):
    """All layers that are asked for have been computed."""


def run_up_to(
    model: Callable[[Tensor], Any],
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
        # A tracer follows no exception out of a module; what nobody asked for falls out of a graph.
        if len(maps) == len(wanted) and not torch.compiler.is_exporting():
            raise _Done

    with ExitStack() as stack:
        for layer in wanted:
            stack.callback(hook(layer, note).remove)
        with suppress(_Done):
            model(images)
    return maps
