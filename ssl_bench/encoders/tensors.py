"""All tensors of a file that others wrote, by name; nothing in the file is run or imported."""

import json
import re
import sys
import warnings
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from ssl_bench.errors import DataError, plain
from ssl_bench.files import refuse_pointer

# Of Python itself, what may stand beside weights: settings, paths and times. All else is a way to
# run code. Of other packages every name may, because nothing of them is called: a stand-in is.
HARMLESS = {
    "argparse.Namespace", "types.SimpleNamespace", "collections.defaultdict", "list", "dict", "int",
    "float", "pathlib.Path", "pathlib.PosixPath", "pathlib.PurePosixPath", "pathlib.WindowsPath",
    "pathlib.PureWindowsPath", "pathlib._local.PosixPath", "pathlib._local.WindowsPath",
    "datetime.date", "datetime.datetime", "datetime.timedelta", "datetime.timezone",
}  # fmt: skip
KINDS = 50  # of objects beside the weights; each is met in another reading of the file
# What torch's own wrappers write into the midst of names.
WRAPPERS = re.compile(r"(?:^|(?<=\.))_(?:orig_mod|fsdp_wrapped_module|checkpoint_wrapped_module)\.")


class _Number:
    """In place of numpy's numbers and arrays: takes whatever a pickle gives, and keeps nothing."""

    def __new__(cls, *_: Any) -> "_Number":
        return super().__new__(cls)

    def __init__(self, *_: Any) -> None: ...

    def __setstate__(self, state: Any) -> None: ...


class _Settings:
    """In place of any other object: a dictionary, of a type that torch's reader lets be filled."""

    def __new__(cls, *_: Any) -> Any:
        return Counter[Any]()


def read_tensors(path: Path) -> dict[str, Tensor]:
    """{name: tensor} of a safetensors file or of what torch.save wrote, in the file's order.

    `….index.json` stands for the shards that it lists, which lie beside it. Names of nested
    dictionaries are joined by dots, names of torch's wrappers are taken off. Raises DataError for a
    file that cannot be read, or holds an object that could run code.
    """
    if path.name.endswith(".index.json"):
        return {n: t for shard in _shards(path) for n, t in read_tensors(shard).items()}
    refuse_pointer(path)
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                content: Any = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        else:
            content = _load(path)
    except DataError:
        raise
    except Exception as error:  # whatever torch meets in a hostile file
        script = "TorchScript" in str(error)
        why = "is a TorchScript archive" if script else "is damaged, or holds more than tensors"
        raise DataError(
            f"{path} cannot be read as weights: it {why}, which is not unpickled because it could "
            "run code; where you trust it, save its state dict alone"
        ) from error
    tensors: dict[str, Tensor] = {}
    for name, tensor in _flat(content, "", set()):
        if tensors.setdefault(name, tensor) is not tensor:
            raise DataError(f"{path} holds two tensors of the name {plain(name)}")
    if not tensors:
        raise DataError(f"{path} holds no state dict of tensors")
    return tensors


def _shards(index: Path) -> list[Path]:
    """The files that an index of Hugging Face's form lists, in its order."""
    try:
        names = list(dict.fromkeys(json.loads(index.read_bytes())["weight_map"].values()))
        shards = [index.parent / name for name in names]
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{index} is no index of shards: it has no weight_map of files") from error
    for name, shard in zip(names, shards, strict=True):
        if Path(name).name != name or name.endswith(".index.json") or not shard.is_file():
            raise DataError(f"{index} lists the shard {plain(name)}, which does not lie beside it")
    return shards


def _load(path: Path) -> Any:
    """What torch.save wrote, with stand-ins for all that is no tensor and no plain container."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            # A small file that unpacks to more than the memory would be read whole.
            if any(i.compress_type != zipfile.ZIP_STORED for i in archive.infolist()):
                raise ValueError("torch does not compress")
    ignored: list[Any] = []
    while True:
        try:
            with warnings.catch_warnings(), torch.serialization.safe_globals(ignored):
                warnings.simplefilter("ignore")  # of pickle protocols: the unreadable is refused
                return torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            found = re.search(r"GLOBAL (\S+) was not an allowed global", str(error))
            if not found or len(ignored) == KINDS:
                raise
            ignored.append(_stand_in(found[1], path))


def _stand_in(name: str, path: Path) -> tuple[Any, str]:
    """What torch's reader takes in place of a class or function; DataError for what could run."""
    package, dot, _ = name.partition(".")
    own = not dot or package in sys.stdlib_module_names or package == "torch"
    if own and name not in HARMLESS:
        raise DataError(
            f"{path} holds {plain(name)[:100]}, which is not unpickled because it could run code: "
            "where you trust the file, save its state dict alone"
        )
    stand_in = _Number if package == "numpy" else _Settings
    return stand_in, name if dot else f"builtins.{name}"


def _flat(content: Any, above: str, seen: set[int]) -> Iterator[tuple[str, Tensor]]:
    if not isinstance(content, dict) or id(content) in seen:
        return  # one may hold itself, or another many times
    seen.add(id(content))
    for name, value in content.items():
        if isinstance(name, str):
            if isinstance(value, Tensor):
                yield WRAPPERS.sub("", above + name), value
            else:
                yield from _flat(value, f"{above}{name}.", seen)
