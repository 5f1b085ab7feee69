"""Weights that no encoder takes, and files of weights that lie, are named."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from helpers.bench import Bench
from helpers.hostile import BELL, RUNS, Change, refused
from helpers.hostile_files import zipped
from helpers.photos import draw_photo
from helpers.refusals import PROBE, SCENES, only
from helpers.spoilt import edit
from ssl_bench.encoders.alexnet import AlexNet
from ssl_bench.files import file_digest

STATES: dict[str, Change] = {
    "numbers as names": lambda own: {1: torch.zeros(2)},
    "bytes as names": lambda own: {b"conv1.0.weight": torch.zeros(2)},
    "sparse": lambda own: own | {"conv1.0.weight": own["conv1.0.weight"].to_sparse()},
    "without storage": lambda own: own | {"conv1.0.weight": own["conv1.0.weight"].to("meta")},
    "complex": lambda own: own | {"conv1.0.weight": own["conv1.0.weight"] * 1j},
    "not finite": lambda own: own | {"conv1.0.weight": own["conv1.0.weight"] * torch.nan},
    "petabytes": lambda own: own | {"conv1.0.weight": torch.zeros(1).expand(10**15)},
    "no tensors": lambda own: {"state_dict": {"conv1.0.weight": "x"}},
    "names that steer": lambda own: {f"a\nbench: {BELL}": torch.zeros(2)},
}


@pytest.mark.parametrize("kind", STATES)
def test_a_state_dict_that_no_encoder_takes_is_named(bench, workspace, tmp_path, kind):
    path = tmp_path / "weights.pth"
    torch.save(STATES[kind](dict(AlexNet().state_dict())), path)
    words = ("--encoder", "alexnet", "--weights", path, "--image-size", 64)
    refused(bench(*PROBE, *SCENES, *words, "--workspace", workspace), path)


# Each makes torch's own reader stumble in another way; the last is how /etc/passwd begins.
STUMBLES = [
    b".", b"\x80\x02.", b"\x80\x02h\x05.", b"\x80\x02)R.", b"\x80\x02)b.", b"\x80\x02s.",
    b"\x80\x02K", b"\x80\x02J\0", b"\x80\x02Qx.", b"\x80\x02cos\nsystem\n.", b"",
    b"root:x:0:0:root:/root:/bin/bash\n",
]  # fmt: skip


@pytest.mark.parametrize("content", STUMBLES)
def test_any_bytes_as_weights_are_refused(bench, workspace, tmp_path, content):
    path = tmp_path / "weights.pth"
    words = ("--encoder", "alexnet", "--weights", path, "--workspace", workspace)
    for whole in (content, zipped({"a/data.pkl": content, "a/version": b"3\n"})):
        path.write_bytes(whole)
        refused(bench(*PROBE, *SCENES, *words), path)


def tensors(header: object, content: bytes = bytes(12), length: int | None = None) -> bytes:
    """A safetensors file, whatever its header says."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + content


def entry(shape: list[int], start: int, end: int, kind: str = "F32") -> dict[str, object]:
    return {"dtype": kind, "shape": shape, "data_offsets": [start, end]}


SAFETENSORS = {
    "header of exabytes": tensors({"a": entry([3], 0, 12)}, length=2**63),
    "header beyond the file": tensors({"a": entry([3], 0, 12)}, length=10**7),
    "no header": tensors({"a": entry([3], 0, 12)}, length=0),
    "overlapping": tensors({"a": entry([2], 0, 8), "b": entry([2], 4, 12)}),
    "backwards": tensors({"a": entry([3], 12, 0)}),
    "beyond the file": tensors({"a": entry([10**11], 0, 4 * 10**11)}),
    "overflowing": tensors({"a": entry([2**62, 2**62], 0, 12)}),
    "unknown type": tensors({"a": entry([3], 0, 12, "F33")}),
    "metadata of another form": tensors({"__metadata__": ["x"], "a": entry([3], 0, 12)}),
    "nested": tensors(b"[" * 100_000),
    "empty": b"",
}


@pytest.mark.parametrize("kind", SAFETENSORS)
def test_safetensors_that_lie_are_named(bench, workspace, tmp_path, kind):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(SAFETENSORS[kind])
    for words in (("--encoder", path), ("--encoder", "alexnet", "--weights", path)):
        refused(bench(*PROBE, *SCENES, *words, "--workspace", workspace), path)


def own_weights() -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Those of the suite's encoder, and the spec that stands in their header."""
    folder = only(RUNS, "pretrain/random-*")
    record = json.loads((folder / "record.json").read_text())
    return load_file(folder / "encoder.safetensors"), record["details"]["encoder"]["spec"]


SPECS: dict[str, Callable[[dict[str, Any]], str]] = {
    "nested": lambda spec: "[" * 100_000,
    "a list": lambda spec: "[]",
    "a long number": lambda spec: '{"arch": "alexnet", "image_size": 1' + "0" * 5000 + "}",
    "images of exapixels": lambda spec: json.dumps(spec | {"image_size": 10**18}),
    "petabytes": lambda spec: json.dumps(
        spec | {"arch": "dcgan", "image_size": 128, "bottleneck": 10**12}
    ),
    "beyond integers": lambda spec: json.dumps(
        spec | {"arch": "dcgan", "image_size": 128, "bottleneck": 10**19}
    ),
    "no deviation": lambda spec: json.dumps(
        spec | {"normalization": {"mean": [0, 0, 0], "std": [0, 0, 0]}}
    ),
    "a path": lambda spec: json.dumps(spec | {"arch": "../../x"}),
    "from elsewhere": lambda spec: json.dumps(spec | {"arch": "timm:hf_hub:x/y", "width": 1}),
    "a name that steers": lambda spec: json.dumps(spec | {"arch": f"a\nbench: {BELL}"}),
}


@pytest.mark.parametrize("kind", SPECS)
def test_a_header_that_describes_no_encoder_is_named(bench: Bench, work: Path, kind: str) -> None:
    """Nothing is allocated by what it says."""
    state, spec = own_weights()
    path = work / "weights.safetensors"
    save_file(state, path, {"encoder": SPECS[kind](spec)})
    refused(bench(*PROBE, *SCENES, "--encoder", path, "--workspace", "runs"), path)


@pytest.mark.parametrize("kind", ["complex64", "bool", "int8", "nan", "infinite"])
def test_weights_that_are_no_weights_are_named(bench: Bench, work: Path, kind: str) -> None:
    """Whole, of the right shapes, and worth nothing."""
    state, spec = own_weights()
    change: Change = {
        "nan": lambda t: t * torch.nan,
        "infinite": lambda t: t + torch.inf,
    }.get(kind, lambda t: (100 * t).to(getattr(torch, kind)))
    path = work / "weights.safetensors"
    spoilt = {name: change(tensor) for name, tensor in state.items()}
    save_file(spoilt, path, {"encoder": json.dumps(spec)})  # type: ignore[arg-type]
    refused(bench(*PROBE, *SCENES, "--encoder", path, "--workspace", "runs"), path)


PARTS: dict[str, Change] = {
    "no tensors": lambda state: None,
    "others": lambda state: {"a": torch.zeros(1)},
    "other shapes": lambda state: {name: torch.zeros(1) for name in state},
    "complex": lambda state: {name: t.to(torch.complex64) for name, t in state.items()},
    "not finite": lambda state: {name: t * torch.nan for name, t in state.items()},
}


@pytest.mark.parametrize("kind", PARTS)
def test_the_other_parts_of_a_pretext_are_named(bench: Bench, work: Path, kind: str) -> None:
    """The record has their digest, so only what is in them can tell."""
    folder = only(RUNS, "pretrain/inpainting-*")
    path = folder / "rest.safetensors"
    made: Any = PARTS[kind]({n: t.float() for n, t in load_file(path).items()})
    path.write_bytes(b"nothing") if made is None else save_file(made, path)
    edit(folder, lambda record: record["files"].update({path.name: file_digest(path)}))
    draw_photo(1).save("photo.png")
    words = ("photo.png", "--out", "filled", "--encoder", "inpainting", "--workspace", "runs")
    result = bench("inpaint", *words)
    assert result.code in (1, 2), result
    assert str(folder) in result.err
