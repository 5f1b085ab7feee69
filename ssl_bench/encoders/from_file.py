"""An encoder that one's own code builds: `file:encoder.py:build`, torch.hub's `hub:FOLDER:ENTRY`.

`build()` returns an Encoder, or any module: its children that give maps are then the layers, unless
its attribute `layers` names others (`("stem", "blocks.3")`), and what it returns itself, if that is
(B, C), is `pooled`. Its attributes `image_size` and `normalization` say what its weights expect,
else 224 px and ImageNet's are assumed, which is said. The code is run, so only a command's own
words may name it.
"""

import importlib.util
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ssl_bench.data.normalization import IMAGENET
from ssl_bench.encoders.build import EncoderSpec
from ssl_bench.encoders.encoder import POOLED, Encoder, check_maps, probe
from ssl_bench.encoders.libraries import local_path, refusal, run_up_to, say_assumed
from ssl_bench.errors import UsageError
from ssl_bench.files import file_digest


class ModuleEncoder(Encoder):
    """Any module; its layers are parts of it that give maps (B, C, h, w)."""

    def __init__(self, model: nn.Module, arch: str, image_size: int) -> None:
        super().__init__()
        self.model = model
        for module in model.modules():
            if getattr(module, "inplace", False):  # it would overwrite the layer before it
                setattr(module, "inplace", False)  # noqa: B010
        named: Any = getattr(model, "layers", None)  # often a list of modules, which names none
        chosen = isinstance(named, tuple | list) and all(isinstance(n, str) for n in named)
        parts: list[str] = list(named) if chosen else [n for n, _ in model.named_children()]
        self.layers = (*(part for part in parts if part != POOLED), POOLED)
        maps = probe(self, image_size)
        if not chosen:  # heads and lists of modules are children, too
            maps = {k: x for k, x in maps.items() if getattr(x, "ndim", 0) == 4}
        elif POOLED in maps and maps[POOLED].ndim != 4:
            del maps[POOLED]
        check_maps(maps, (2, 3, image_size, image_size), arch)
        if not maps:
            raise UsageError(
                f"{arch} has no part that gives maps (B, C, h, w): name them, `layers`"
            )
        self.layers = tuple(maps)

    def forward(
        self, images: Tensor, layers: Sequence[str], keep: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Normalised float (B, 3, S, S) -> {layer: (B, C, h, w)}; see `Encoder.forward`."""
        self.check_layers(layers)
        self.check_keep(keep, images)
        return run_up_to(self.model, images, layers, self._hook)

    def _hook(self, layer: str, note: Callable[[str, Any], None]) -> RemovableHandle:
        if layer != POOLED:

            def part(_module: nn.Module, _inputs: Any, given: Any) -> Any:
                note(layer, given)
                # What runs on gets a copy: it may add to it in place.
                return given.clone() if isinstance(given, Tensor) else None

            return self.model.get_submodule(layer).register_forward_hook(part)

        def whole(_module: nn.Module, _images: Any, given: Any) -> None:
            vector = isinstance(given, Tensor) and given.ndim == 2
            note(layer, given[..., None, None] if vector else given)

        return self.model.register_forward_hook(whole)


def open_file(text: str, image_size: int | None = None) -> tuple[Encoder, EncoderSpec]:
    """Run the file that `file:PATH:FUNCTION` names, and what its function builds.

    The spec's `arch` has the beginning of the file's SHA-256, so that another file is another
    encoder. Raises UsageError for a file or function that is not there, or fails.
    """
    file, _, function = text.removeprefix("file:").rpartition(":")
    path = local_path(file)
    if function.endswith(".py"):
        raise UsageError(f"{text} names no function of the file, as in {text}:build")
    if path.suffix != ".py" or not path.is_file():
        raise UsageError(f"{text}: there is no Python file '{file}': file:encoder.py:build")

    def build() -> Any:
        found = getattr(_imported(path), function, None)
        if not callable(found):
            raise UsageError(f"{path} has no function {function}")
        return found()

    return _built(f"file:{path.name}:{function}", path, build, image_size)


def open_hub(text: str, image_size: int | None = None) -> tuple[Encoder, EncoderSpec]:
    """Run a local folder's hubconf.py as torch.hub does, and what its entry point builds.

    The entry's own defaults say whether it brings weights. The spec's `arch` has the digest of
    hubconf.py. Raises UsageError for a folder or an entry that is not there, or fails.
    """
    place, _, entry = text.removeprefix("hub:").rpartition(":")
    folder = local_path(place)
    if not (folder / "hubconf.py").is_file():
        raise UsageError(f"{text}: there is no hubconf.py in '{place}': hub:FOLDER:ENTRY")

    def build() -> Any:
        return torch.hub.load(str(folder), entry, source="local")

    return _built(f"hub:{folder.resolve().name}:{entry}", folder / "hubconf.py", build, image_size)


def _built(
    name: str, path: Path, build: Callable[[], Any], image_size: int | None
) -> tuple[Encoder, EncoderSpec]:
    """What the code in a file builds, as an encoder."""
    with refusal(name, image_size or 224, image_size or 224):
        torch.manual_seed(0)  # what it may draw is the same tomorrow
        built: Any = build()
        if not isinstance(built, nn.Module):
            raise UsageError(f"{name} returns a {type(built).__name__}, not a module of torch")
        sized = image_size is not None or hasattr(built, "image_size")
        say_assumed(name, normalization=not hasattr(built, "normalization"), image_size=not sized)
        spec = EncoderSpec(
            arch=f"{name}@{file_digest(path)[:12]}",
            image_size=image_size or getattr(built, "image_size", 224),
            normalization=getattr(built, "normalization", IMAGENET),
        )
        if not isinstance(built, Encoder):
            built = ModuleEncoder(built, name, spec.image_size)
    return built, spec


def _imported(path: Path) -> Any:
    """The file as a module; it may import its neighbours, but they hide no package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    if str(path.parent.resolve()) not in sys.path:
        sys.path.append(str(path.parent.resolve()))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
