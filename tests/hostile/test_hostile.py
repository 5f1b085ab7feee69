"""Files made to harm: none is run, none leads outside, memory stays bounded, each is named.

Checkpoints, weights, predictions, records, suites and images as a stranger could send them. What
merely is damaged stands in test_bad_images.py, test_bad_requests.py and test_bad_runs.py.
"""

import base64
import importlib
import io
import json
import os
import pickle
import re
import resource
import shutil
import signal
import struct
import subprocess
import sys
import time
import tracemalloc
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import EpsImagePlugin, Image
from safetensors.torch import load_file, save_file

import ssl_bench
from eval.proposals import open_proposals, proposals_path
from helpers.bench import Bench, Result, call
from helpers.interrupted import interrupted_at
from helpers.photos import draw_photo
from helpers.refusals import PRETRAIN, PROBE, SCENES, fails, only
from helpers.spoilt import Payload, edit, named, rekeyed, with_digest
from helpers.suites import SUITE
from helpers.voc_folders import add_masks, annotate, make_year, thing
from ssl_bench import catalogue
from ssl_bench.cli import main
from ssl_bench.data.whole import open_whole
from ssl_bench.encoders import AlexNet
from ssl_bench.errors import BenchError, DataError
from ssl_bench.inpaint import parts_of
from ssl_bench.records import Record, file_digest, write_atomically

Change = Callable[[Any], object]
RUNS = Path("runs")  # in the folder that one works in, which is the current one
BELL = "\x1b]0;x\x07"  # names the terminal's window and rings: nobody's name for anything
MARKUP = "</script></pre></details>\"'><img src=x onerror=alert(1)><script>alert(1)</script>"


# ---- what all of them share


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """runs/ and mini/: a suite's workspace and its export; runs/ also has a network that fills."""
    folder = tmp_path_factory.mktemp("measured")
    (folder / "mini.toml").write_text(SUITE)
    place = ("--workspace", folder / "runs", "--workers", 0)
    call("export", folder / "mini.toml", "--out", folder / "mini", *place)
    short = ("--width", 0.05, "--bottleneck", 8, "--steps", 1, "--batch-size", 2)
    call("pretrain", "inpainting", *short, *SCENES, *place)
    return folder


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """What nothing may touch: a file and a picture, beside the folder that one works in."""
    folder = tmp_path / "outside"
    (folder / "folder").mkdir(parents=True)
    (folder / "precious.txt").write_text("precious\n")
    Image.new("RGB", (40, 40), (255, 0, 0)).save(folder / "secret.png")
    return folder


@pytest.fixture
def work(measured: Path, outside: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that one works in: copies of runs/, mini/ and mini.toml, to spoil."""
    folder = Path(shutil.copytree(measured, tmp_path / "work"))
    monkeypatch.chdir(folder)
    return folder


def snapshot(folder: Path, but: str = "work") -> dict[str, bytes | str]:
    """Every file, folder and link below `folder`, with what it holds; `but` is left out."""
    found: dict[str, bytes | str] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if name.split("/")[0] == but:
            continue
        if path.is_symlink():
            found[name] = f"-> {path.readlink()}"
        else:
            found[name] = path.read_bytes() if path.is_file() else ""
    return found


def plain(text: str) -> None:
    """Nothing that steers a terminal."""
    strange = {c for c in text if unicodedata.category(c) == "Cc"} - {"\n"}
    assert not strange, f"{strange} in {text[:500]!r}"


def refused(result: Result, *parts: object) -> None:
    """A wrong request or bad data, in one line that has all parts."""
    assert result.code in (1, 2), result
    fails(result, result.code, *map(str, parts))
    plain(result.out + result.err)


def answered(result: Result, *parts: object) -> None:
    """The command did what it was asked for, or refused to and said of what."""
    if result.code:
        refused(result, *parts)


def told(result: Result, part: str) -> None:
    """As `answered`, or a comparison that found differences, which it prints."""
    if not (result.code == 1 and result.out.startswith(part)):
        answered(result)


def caught(job: Callable[[], object]) -> BenchError | None:
    """What a public function refuses with; None if it does not."""
    try:
        job()
    except BenchError as error:
        return error
    return None


def evaluation(runs: Path = RUNS) -> Path:
    """The folder of the number that is not a control."""
    return only(runs, "evaluation/knn-*")


def key_in(folder: Path) -> str:
    return json.loads((folder / "record.json").read_text())["key"]


def add_twin() -> None:
    """A second method on the same images: now tables compare the predictions of both."""
    twin = shutil.copytree(evaluation(), RUNS / "evaluation" / "twin-000000000000")
    edit(Path(twin), lambda record: record.update(method="twin"))
    rekeyed(Path(twin), lambda identity: identity["encoder"].update(run="0" * 64))


READERS = {
    "table": ("table", "--workspace", "runs"),
    "report": ("report", "--workspace", "runs", "--out", "page.html"),
    "runs": ("runs", "--workspace", "runs"),
    "compare": ("compare", "random", "twin", "--workspace", "runs"),
    "import": ("import", "runs", "--workspace", "other"),
}


# ---- pickles


def pickled(mark: Path, kind: str) -> bytes:
    """A file that makes `mark` where it is unpickled."""
    content, file = {"conv1.0.weight": Payload(mark)}, io.BytesIO()
    if kind == "pickle":
        return pickle.dumps(content, protocol=2)
    if kind == "npy":
        np.save(file, np.array([Payload(mark)], object), allow_pickle=True)
    elif kind == "npz":
        np.savez_compressed(file, label=np.array([Payload(mark)] * 20, object))
    else:
        torch.save(content, file, _use_new_zipfile_serialization=kind == "zip")
    return file.getvalue()


UNPICKLED: dict[str, Callable[[io.BytesIO], object]] = {
    "pickle": pickle.load,
    "zip": lambda file: torch.load(file, weights_only=False),
    "legacy": lambda file: torch.load(file, weights_only=False),
    "npy": lambda file: np.load(file, allow_pickle=True),
    "npz": lambda file: np.load(file, allow_pickle=True)["label"],
}


@pytest.mark.parametrize("kind", UNPICKLED)
def test_these_files_would_run_if_they_were_unpickled(tmp_path: Path, kind: str) -> None:
    """Else the tests below could not fail."""
    mark = tmp_path / "ran"
    content = pickled(mark, kind)
    assert not mark.exists()
    UNPICKLED[kind](io.BytesIO(content))
    assert mark.exists()


@pytest.mark.parametrize("suffix", ["pth", "pt", "bin", "safetensors"])
def test_a_pickle_among_the_weights_is_not_run(
    bench: Bench, workspace: Path, tmp_path: Path, suffix: str
) -> None:
    mark, path = tmp_path / "ran", tmp_path / f"weights.{suffix}"
    for kind in ("pickle", "zip", "legacy"):
        path.write_bytes(pickled(mark, kind))
        for words in (("--encoder", path), ("--encoder", "alexnet", "--weights", path)):
            refused(bench(*PROBE, *SCENES, *words, "--workspace", workspace), path)
    assert not mark.exists()


@pytest.fixture(scope="module")
def half_done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training that was stopped in its second step of four."""
    folder = tmp_path_factory.mktemp("half") / "runs"
    words = [*PRETRAIN, *SCENES, "--workspace", folder]
    with pytest.MonkeyPatch.context() as patch, interrupted_at(1):
        patch.setattr(sys, "argv", ["bench", *map(str, words)])
        with pytest.raises(SystemExit):
            main()
    return folder


@pytest.fixture
def stopped(half_done: Path, outside: Path, tmp_path: Path) -> Path:
    """Its folder in a copy of the workspace, to spoil."""
    runs = shutil.copytree(half_done, tmp_path / "work" / "runs")
    return only(Path(runs), "pretrain/context-*")


def go_on(bench: Bench, folder: Path, *words: str) -> Result:
    return bench(*PRETRAIN, *SCENES, *words, "--workspace", folder.parent.parent)


def test_a_stopped_training_goes_on(bench: Bench, stopped: Path) -> None:
    assert "continuing at step 2 of 4" in go_on(bench, stopped).err


@pytest.mark.parametrize("kind", ["pickle", "zip", "legacy"])
def test_a_pickle_as_checkpoint_is_not_run(bench: Bench, stopped: Path, kind: str) -> None:
    mark = stopped / "ran"
    (stopped / "checkpoint.pt").write_bytes(pickled(mark, kind))
    refused(go_on(bench, stopped), stopped / "checkpoint.pt", "damaged")
    assert not mark.exists()


@pytest.mark.parametrize("kind", ["pickle", "npy", "npz", "zip"])
def test_a_pickle_as_predictions_is_not_run(bench: Bench, work: Path, kind: str) -> None:
    folder, mark = evaluation(), work / "ran"
    add_twin()
    (folder / "predictions.npz").write_bytes(pickled(mark, kind))
    with_digest(folder)
    for reader in ("table", "report", "compare"):
        result = bench(*READERS[reader])
        if kind != "zip":  # it is an archive, and holds no array
            refused(result, folder / "predictions.npz")
        answered(result)
    named(bench, RUNS, folder)
    assert bench("show", key_in(folder)[:12], "--workspace", "runs").code == 0
    assert len(ssl_bench.load_records(RUNS)) > 0
    assert not mark.exists()


@pytest.mark.parametrize("name", ["index.json", "images.bin"])
def test_a_pickle_in_the_cache_is_not_run(
    bench: Bench, tiny_photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("SSL_BENCH_CACHE", str(tmp_path / "cache"))
    small = ("--image-size", 64, "--width", 0.1, "--workers", 0, "--data", f"folder:{tiny_photos}")
    command = ("pretrain", "random", *small, "--workspace", tmp_path / "runs")
    assert bench(*command).code == 0
    path = only(tmp_path / "cache", f"*/{name}")
    path.write_bytes(pickled(tmp_path / "ran", "pickle"))
    refused(bench(*command), path, "damaged")
    assert not (tmp_path / "ran").exists()


def npy(shape: object, kind: str = "<i8", content: bytes = b"", header: bytes = b"") -> bytes:
    """An array in NumPy's format, whatever its header says."""
    header = header or repr({"descr": kind, "fortran_order": False, "shape": shape}).encode()
    header += b" " * (63 - (len(header) + 10) % 64) + b"\n"
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(header)) + header + content


def zipped(members: Mapping[str, bytes], how: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", how) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


HUGE = npy((10**12,))
BOXES = {
    "pickle": lambda mark: pickled(mark, "npz"),
    "huge": lambda mark: zipped({"boxes.npy": HUGE, "ends.npy": HUGE}),
    "one array": lambda mark: npy((20,), content=bytes(160)),
}


@pytest.mark.parametrize("kind", BOXES)
def test_hostile_proposals_in_the_cache_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setenv("SSL_BENCH_CACHE", str(tmp_path))
    scenes = catalogue.dataset("scenes:train=2,test=1")
    store = open_whole(scenes, "train", "detection", 64, 96, workers=0)
    path = proposals_path(store)
    path.write_bytes(BOXES[kind](tmp_path / "ran"))
    with pytest.raises(DataError, match=re.escape(str(path))):
        open_proposals(store, "train", threads=1)
    assert not (tmp_path / "ran").exists()


# ---- weights


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
def test_a_state_dict_that_no_encoder_takes_is_named(
    bench: Bench, workspace: Path, tmp_path: Path, kind: str
) -> None:
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
def test_any_bytes_as_weights_are_refused(
    bench: Bench, workspace: Path, tmp_path: Path, content: bytes
) -> None:
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
def test_safetensors_that_lie_are_named(
    bench: Bench, workspace: Path, tmp_path: Path, kind: str
) -> None:
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


# ---- checkpoints of a training


def _shrink(saved: dict[str, Any]) -> None:
    """The optimiser's memory gets other shapes than its weights."""
    for state in saved["optimizers"][0]["state"].values():
        for name, value in state.items():
            state[name] = torch.zeros(1) if value.ndim else value


CHECKPOINTS: dict[str, Change] = {
    "a step far beyond": lambda saved: saved.update(step=10**9),
    "a step before the first": lambda saved: saved.update(step=-3),
    "no number of a step": lambda saved: saved.update(step=float("inf")),
    "no optimiser": lambda saved: saved.update(optimizers=[None]),
    "a state of another form": lambda saved: saved["optimizers"][0].update(state=5),
    "other shapes": _shrink,
    "no rate": lambda saved: saved["optimizers"][0]["param_groups"][0].update(lr="x", betas=5),
    "no times": lambda saved: saved.update(clock=["a", "b", "c"]),
    "losses of another form": lambda saved: saved.update(last="abc"),
    "no weights": lambda saved: saved["task"].update({n: n for n in saved["task"]}),
    "complex weights": lambda saved: saved["task"].update(
        {n: t * 1j for n, t in saved["task"].items() if t.is_floating_point()}
    ),
}


@pytest.mark.parametrize("kind", CHECKPOINTS)
def test_a_checkpoint_that_cannot_be_gone_on_from_is_named(
    bench: Bench, stopped: Path, kind: str
) -> None:
    path = stopped / "checkpoint.pt"
    saved = torch.load(path, weights_only=True)
    CHECKPOINTS[kind](saved)
    torch.save(saved, path)
    refused(go_on(bench, stopped), path)
    assert not (stopped / "record.json").exists()


LOGS = [b"hello\n", b"[1]\n", b"{}\n", b"5\n", b"[" * 100_000 + b"\n", b"\xff\xfe\n"]


@pytest.mark.parametrize("content", LOGS, ids=lambda content: repr(content[:6]))
def test_a_log_of_another_form_is_named_or_let_be(
    bench: Bench, stopped: Path, content: bytes
) -> None:
    (stopped / "log.jsonl").write_bytes(content)
    answered(go_on(bench, stopped), stopped / "log.jsonl")


# ---- predictions


ARRAYS = {
    "one array": npy((20,), content=bytes(160)),
    "terabytes": zipped({f"{name}.npy": HUGE for name in ("label", "predicted")}),
    "overflowing": zipped({"label.npy": npy((2**62, 2**62))}),
    "negative": zipped({"label.npy": npy((-5,))}),
    "wide": zipped({"label.npy": npy((20,), "|V1000000000000")}),
    "nested": zipped({"label.npy": npy(0, header=b"-" * 9000 + b"1")}),
    "no arrays": zipped(dict.fromkeys(("label", "predicted", "predicted_by_k"), b"x" * 20)),
    "of other lengths": zipped(
        {f"{name}.npy": npy((5,), content=bytes(40)) for name in ("label", "predicted")}
    ),
    "leading outside": zipped({"../../../evil.npy": npy((20,), content=bytes(160))}),
    "empty": b"",
    "text": b"hello",
}


@pytest.mark.parametrize("kind", ARRAYS)
def test_predictions_of_another_form_are_named(bench: Bench, work: Path, kind: str) -> None:
    folder, before = evaluation(), snapshot(work.parent)
    add_twin()
    (folder / "predictions.npz").write_bytes(ARRAYS[kind])
    with_digest(folder)
    named(bench, RUNS, folder)
    for reader in ("table", "report", "import"):
        answered(bench(*READERS[reader]), folder)
    answered(bench(*READERS["compare"]))  # which may find nothing to compare
    assert not (work / "other").exists()
    assert snapshot(work.parent) == before


def test_compressed_bytes_that_are_none_are_named(bench: Bench, work: Path) -> None:
    folder = evaluation()
    add_twin()
    content = bytearray((folder / "predictions.npz").read_bytes())
    start = 30 + struct.unpack("<H", content[26:28])[0] + struct.unpack("<H", content[28:30])[0]
    content[start : start + 8] = b"\xff" * 8
    (folder / "predictions.npz").write_bytes(content)
    with_digest(folder)
    named(bench, RUNS, folder)
    refused(bench(*READERS["table"]), folder)


# ---- records


def read_by_all(bench: Bench, folder: Path) -> None:
    """Every command that reads records does its work, or names the run by its folder or key."""
    key = folder.name[-12:]
    for name in READERS.keys() - {"runs", "compare"}:
        answered(bench(*READERS[name]), key)
    assert bench(*READERS["runs"]).code == 0  # a damaged record hides no other
    answered(bench("show", key, "--workspace", "runs"), key)
    error = caught(lambda: ssl_bench.load_records(RUNS))
    assert error is None or key in str(error)


WRONG = {
    "schema_version": ["x", None, 999], "kind": [5, "other", "../../x"], "key": [5, None, "f" * 64],
    "identity": [[], None, "x"], "method": [5, {}, None], "data": [[], None],
    "metrics": [[], 5, {"top1": "x"}, {"top1": [1]}, {"top1": None}], "details": [5, [], None],
    "files": [5, {"a.png": 5}, ["a.png"]], "provenance": [5, {}, None],
}  # fmt: skip


@pytest.mark.parametrize("field", WRONG)
def test_every_field_of_a_record_has_its_type(bench: Bench, work: Path, field: str) -> None:
    assert set(WRONG) == set(Record.model_fields)
    folder = evaluation()
    for value in WRONG[field]:
        edit(folder, lambda record, value=value: record.update({field: value}))
        refused(bench(*READERS["table"]), folder / "record.json")
        named(bench, RUNS, folder / "record.json")
        assert str(folder / "record.json") in bench(*READERS["runs"]).out


IDENTITIES: dict[str, Change] = {
    "no protocol": lambda identity: identity.pop("protocol"),
    "a number as protocol": lambda identity: identity.update(protocol=5),
    "a list as protocol": lambda identity: identity.update(protocol=[]),
    "no layer": lambda identity: identity.pop("layer"),
    "a list as layer": lambda identity: identity.update(layer=["conv3"]),
    "no settings": lambda identity: identity.pop("config"),
    "nothing as settings": lambda identity: identity.update(config=None),
    "other settings": lambda identity: identity["config"].update(k="all"),
    "a number as encoder": lambda identity: identity.update(encoder=5),
    "no data": lambda identity: identity.pop("data"),
    "a list as data": lambda identity: identity.update(data=[]),
    "a control without chance": lambda identity: identity.update(control="shuffled-labels"),
}


@pytest.mark.parametrize("kind", IDENTITIES)
def test_an_identity_of_another_form_is_named(bench: Bench, work: Path, kind: str) -> None:
    folder = rekeyed(evaluation(), IDENTITIES[kind])
    read_by_all(bench, folder)
    key = key_in(folder)[:12]
    told(bench("rerun", key, "--workers", 0, "--workspace", "runs"), key)
    named(bench, RUNS, folder)


DETAILS: dict[str, Change] = {
    "nothing": lambda details: details.clear(),
    "no metric": lambda details: [details.pop(name) for name in ("metric", "shown")],
    "a number of metrics": lambda details: details.update(shown=5),
    "lists of metrics": lambda details: details.update(shown=[[]]),
    "another metric": lambda details: details.update(shown=["top2"]),
    "no digits": lambda details: details.update(digits=None),
    "no units": lambda details: details.update(units=None),
    "a list as interval": lambda details: details.update(interval=[]),
    "a number as pretraining": lambda details: details.update(pretraining=5),
    "a list as digest": lambda details: details.update(pretraining_digest=[]),
    "no test images": lambda details: details.pop("test_images"),
    "nothing skipped": lambda details: details.update(skipped_images=None),
    "a list as layer": lambda details: details.update(asked_layer=["conv3"]),
}


@pytest.mark.parametrize("kind", DETAILS)
def test_details_of_another_form_are_named(bench: Bench, work: Path, kind: str) -> None:
    folder = evaluation()
    edit(folder, lambda record: DETAILS[kind](record["details"]))
    read_by_all(bench, folder)


@pytest.mark.parametrize("lost", ["top1", "top1_high"])
def test_metrics_that_are_missing_are_named(bench: Bench, work: Path, lost: str) -> None:
    folder = evaluation()
    edit(folder, lambda record: record["metrics"].pop(lost))
    read_by_all(bench, folder)


ENCODERS: dict[str, Change] = {
    "no encoder": lambda record: record["details"].pop("encoder"),
    "a number as encoder": lambda record: record["details"].update(encoder=5),
    "another spec": lambda record: record["details"]["encoder"].update(spec=5),
    "no settings": lambda record: record["identity"].pop("config"),
    "a number as settings": lambda record: record["identity"].update(config=5),
    "other settings": lambda record: record["identity"]["config"].update(x=5),
    "petabytes": lambda record: record["identity"]["config"].update(bottleneck=10**12),
    "a path as method": lambda record: record.update(method="../../x"),
    "a library as method": lambda record: record.update(method="timm:resnet18"),
}


@pytest.mark.parametrize("kind", ENCODERS)
def test_a_pretraining_record_of_another_form_is_named(bench: Bench, work: Path, kind: str) -> None:
    """Or does not matter; but it never makes a command fall."""
    folder = only(RUNS, "pretrain/inpainting-*")
    edit(folder, ENCODERS[kind])
    folder, place = rekeyed(folder, lambda identity: None), ("--workspace", "runs")
    draw_photo(1).save("photo.png")
    key = key_in(folder)[:12]
    answered(bench("show", key, *place))
    told(bench("rerun", key, "--workers", 0, *place), key)
    answered(bench("inpaint", "photo.png", "--out", "filled", *place))
    answered(bench("knn", "--k", 1, "--layer", "conv2", "--workers", 0, *SCENES, *place), key)


def rewrite(folder: Path, old: str, new: str) -> None:
    path = folder / "record.json"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


TEXTS: dict[str, Callable[[bytes], bytes]] = {
    "nested": lambda text: b"[" * 1_000_000,
    "nested details": lambda text: text.replace(
        b'"shown"', b'"x": ' + b"[" * 100_000 + b"]" * 100_000 + b', "shown"', 1
    ),
    "a long number": lambda text: text.replace(b"9600", b"1" + b"0" * 5000, 1),
    "UTF-16": lambda text: text.decode().encode("utf-16"),
    "Latin-1": lambda text: text.replace(b"random", b"rand\xf6m", 1),
    "half a character": lambda text: text.replace(b'"random"', b'"\\ud800"', 1),
    "nothing": lambda text: b"",
}


@pytest.mark.parametrize("kind", TEXTS)
def test_json_that_cannot_be_read_is_named(bench: Bench, work: Path, kind: str) -> None:
    path = evaluation() / "record.json"
    path.write_bytes(TEXTS[kind](path.read_bytes()))
    for reader in ("table", "report", "import"):
        refused(bench(*READERS[reader]), path)
    named(bench, RUNS, path)
    with pytest.raises(DataError, match=re.escape(str(path))):
        ssl_bench.load_records(RUNS)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e400", "1" + "0" * 400])
def test_metrics_are_numbers(bench: Bench, work: Path, number: str) -> None:
    """A record of ours cannot hold another: it would be read as damaged."""
    folder = evaluation()
    value = json.loads((folder / "record.json").read_text())["metrics"]["top1"]
    rewrite(folder, f'"top1": {value}', f'"top1": {number}')
    for reader in ("table", "report", "import"):
        refused(bench(*READERS[reader]), folder)
    named(bench, RUNS, folder)


def test_a_key_that_stands_twice_is_judged_as_it_is_printed(bench: Bench, work: Path) -> None:
    folder = evaluation()
    rewrite(folder, '"metrics": {', '"metrics": {"top1": 99.0,')
    assert "99.0" not in bench(*READERS["table"]).out
    assert bench("verify", "runs").code == 0
    value = json.loads((folder / "record.json").read_text())["metrics"]["top1"]
    rewrite(folder, f'"top1": {value},', f'"top1": {value}, "top1": 98.5,')
    assert "98.5" in bench(*READERS["table"]).out
    named(bench, RUNS, folder, "top1 is 98.5")


# ---- names in records


FIELDS: dict[str, Callable[[dict[str, Any], str], object]] = {
    "method": lambda record, name: record.update(method=name),
    "data": lambda record, name: record.update(data=name),
    "layer": lambda record, name: record["details"].update(column=name, asked_layer=name),
    "protocol": lambda record, name: record["details"].update(protocol=name),
    "metric": lambda record, name: (
        record["metrics"].update({name: 5.0}),
        record["details"].update(shown=[name]),
    ),
    "image": lambda record, name: record["details"].update(skipped_images=[name]),
}


@pytest.mark.parametrize("name", ["../../outside/x", "{outside}/x", "n" * 5000])
@pytest.mark.parametrize("field", FIELDS)
def test_a_name_leads_nowhere(
    bench: Bench, work: Path, outside: Path, field: str, name: str
) -> None:
    before = snapshot(work.parent)
    for folder in (evaluation(), only(RUNS, "pretrain/random-*")):
        edit(folder, lambda r: r.update(method=name.replace("{outside}", str(outside))))
        if folder.parent.name == "evaluation":
            edit(folder, lambda r: FIELDS[field](r, name.replace("{outside}", str(outside))))
    for reader in ("table", "report", "runs", "import"):
        answered(bench(*READERS[reader]))
    answered(bench("table", "--workspace", "runs", "--out", "tables"))
    answered(bench("show", key_in(evaluation())[:12], "--workspace", "runs"))
    assert snapshot(work.parent) == before
    assert {path.name for path in work.iterdir()} <= {
        "runs", "mini", "mini.toml", "page.html", "tables"
    }  # fmt: skip


@pytest.mark.parametrize("name", [f"a{BELL}b", "a\0b", "a\x9b2Jb", "a\rb"])
@pytest.mark.parametrize("field", FIELDS)
def test_no_name_steers_a_terminal(bench: Bench, work: Path, field: str, name: str) -> None:
    folder = evaluation()
    edit(folder, lambda record: FIELDS[field](record, name))
    for words in (READERS["table"], READERS["runs"], ("compare", "x", "y", "--workspace", "runs")):
        result = bench(*words)
        plain(result.out + result.err)
    for words in (("verify", "runs"), ("show", key_in(folder)[:12], "--workspace", "runs")):
        result = bench(*words)
        plain(result.out + result.err)


def test_a_folder_s_name_does_not_steer_a_terminal(bench: Bench, work: Path) -> None:
    folder = evaluation()
    folder = folder.rename(folder.with_name(f"{BELL}\nbench: all is well{folder.name[-13:]}"))
    edit(folder, lambda record: record["metrics"].update(top1=99.0))
    for words in (("verify", "runs"), READERS["import"]):
        result = bench(*words)
        assert result.code == 1
        plain(result.out + result.err)
        assert not any(line.startswith("bench: all is well") for line in result.err.splitlines())


def cells(line: str) -> list[str]:
    """Of a line of a Markdown table."""
    return re.split(r"(?<!\\)\|", line)


@pytest.mark.parametrize("name", ["a | 99.9 ± 0.1 ●", "a\n| b | 99.9 ± 0.1 |", "a|b\\|c"])
@pytest.mark.parametrize("field", ["method", "layer", "protocol"])
def test_a_name_cannot_forge_a_cell(bench: Bench, work: Path, field: str, name: str) -> None:
    folder = evaluation()
    before = bench(*READERS["table"]).out.splitlines()
    edit(folder, lambda record: FIELDS[field](record, name))
    result = bench(*READERS["table"])
    answered(result, folder)
    if result.code == 0:
        lines = result.out.splitlines()
        assert [len(cells(line)) for line in lines] == [len(cells(line)) for line in before]


SAFE = r"\\(?:textbackslash|textasciicircum|textasciitilde)\b(?:\{\})?|\\[\^~]\{\}|\\[&%$#_{}]"


@pytest.mark.parametrize(
    "name", [r"\input{/etc/passwd}", "^^5cinput x", "a~b", "a & b", "50% $x_1$ {#}", "a\n\nb"]
)
def test_a_name_is_no_command_of_latex(bench: Bench, work: Path, name: str) -> None:
    edit(evaluation(), lambda record: record.update(method=name))
    result = bench(*READERS["table"], "--format", "latex")
    answered(result, evaluation())
    if result.code == 0:
        rows = result.out.partition("\\midrule\n")[2].partition("\\bottomrule")[0]
        assert len(rows.splitlines()) == 1, rows
        cell = rows.split(" & ")[0]
        left = re.sub(SAFE, "", cell)
        assert not set("\\^~&%$#_{}") & set(left), cell


# ---- the page


class Page(HTMLParser):
    """How often each tag stands in a page, and which attributes act."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: dict[str, int] = {}
        self.active: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] = self.tags.get(tag, 0) + 1
        self.active += [name for name, _ in attrs if name.startswith("on")]
        self.active += [value for _, value in attrs if value and value.startswith("javascript:")]


def inject(record: dict[str, Any]) -> None:
    """Markup wherever a record holds text of its own."""
    metric = record["details"]["metric"]
    record.update(method=MARKUP, data=MARKUP)
    record["details"].update(
        protocol=MARKUP, column=MARKUP, asked_layer=MARKUP, encoder=MARKUP, interval=MARKUP,
        pretraining_data=MARKUP, skipped_images=[MARKUP], units={metric: MARKUP},
    )  # fmt: skip
    record["details"]["selection"][MARKUP] = MARKUP
    record["metrics"][MARKUP] = record["metrics"][metric]
    record["provenance"].update(command=MARKUP, device=MARKUP, packages={MARKUP: MARKUP})


def test_no_text_of_a_record_becomes_markup(bench: Bench, work: Path) -> None:
    folder = evaluation()
    words = ("report", "--workspace", "runs", "--out", "page.html", "--title")
    edit(folder, lambda record: record["metrics"].update(x=1.0))
    edit(folder, lambda record: record["details"].update(skipped_images=["x"]))
    assert bench(*words, "x").code == 0
    clean = Page(Path("page.html").read_text(encoding="utf-8"))
    edit(folder, lambda record: record["metrics"].pop("x"))
    edit(folder, inject)
    assert bench(*words, MARKUP).code == 0
    text = Path("page.html").read_text(encoding="utf-8")
    found = Page(text)
    assert text.count("&lt;script&gt;alert(1)") > 10
    assert found.tags == clean.tags
    assert found.active == []


# ---- pictures and other files beside a record


PLACES = {
    "relative": "../../../../outside/secret.png",
    "absolute": "{outside}/secret.png",
    "link": "link.png",
}


@pytest.fixture(params=PLACES)
def lured(request: pytest.FixtureRequest, work: Path, outside: Path) -> Path:
    """A run whose record names a picture that is not its own, in one of three ways."""
    folder, secret = evaluation(), outside / "secret.png"
    name = PLACES[request.param].replace("{outside}", str(outside))
    if request.param == "link":
        (folder / name).symlink_to(secret)
    assert (folder / name).resolve() == secret
    edit(folder, lambda record: record["files"].update({name: file_digest(secret)}))
    return folder


def test_a_page_shows_no_picture_from_outside(bench: Bench, lured: Path) -> None:
    result = bench(*READERS["report"])
    answered(result, lured)
    if result.code == 0:
        assert "data:image" not in Path("page.html").read_text()


def test_a_page_does_show_a_run_s_own_picture(bench: Bench, work: Path) -> None:
    """Else the test above could not fail."""
    draw_photo(1).save(evaluation() / "own.png")
    digest = file_digest(evaluation() / "own.png")
    edit(evaluation(), lambda record: record["files"].update({"own.png": digest}))
    assert bench(*READERS["report"]).code == 0
    found = re.findall(r"data:image/jpeg;base64,([\w+/=]+)", Path("page.html").read_text())
    assert [Image.open(io.BytesIO(base64.b64decode(one))).size for one in found] == [(96, 80)]


def _is_red(path: Path) -> bool:
    """As the secret picture is, of whatever size."""
    with Image.open(path) as image:
        return image.convert("RGB").getpixel((0, 0)) == (255, 0, 0)


def test_an_export_takes_nothing_from_outside(bench: Bench, lured: Path) -> None:
    words = ("--workspace", "runs", "--workers", 0)
    answered(bench("export", "mini.toml", "--out", "again", *words), lured)
    assert [path for path in Path("again").rglob("*.png") if _is_red(path)] == []


def test_an_export_takes_no_figure_from_outside(bench: Bench, work: Path, outside: Path) -> None:
    (RUNS / "figures").mkdir()
    (RUNS / "figures" / "link.png").symlink_to(outside / "secret.png")
    words = ("--workspace", "runs", "--workers", 0)
    answered(bench("export", "mini.toml", "--out", "again", *words), RUNS / "figures" / "link.png")
    assert [path for path in Path("again").rglob("*.png") if _is_red(path)] == []


def test_an_import_takes_nothing_from_outside(bench: Bench, lured: Path) -> None:
    refused(bench(*READERS["import"]), lured, "outside its folder")
    assert not Path("other").exists()


def png(width: int, height: int, content: bytes | None = None, more: bytes = b"") -> bytes:
    """A black PNG of one bit a pixel, whatever its header says; `more` chunks stand before it."""
    if content is None:
        content = zlib.compress(bytes((1 + (width + 7) // 8) * height), 9)
    size = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    ends = chunk(b"IDAT", content) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + more + ends


def chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


@cache
def text_bomb(kind: bytes, head: bytes) -> bytes:
    """A PNG of 96 px with 50 MiB of text, or of a colour profile, in 50 kB."""
    return png(96, 96, more=chunk(kind, head + zlib.compress(bytes(50 << 20), 6)))


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 96 96\n%%EndComments\nshowpage\n%%EOF\n"
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="96" height="96"><script/></svg>'
IMAGES: dict[str, Callable[[], bytes]] = {
    "30,000 px.png": lambda: png(30_000, 30_000, zlib.compress(b"")),
    "12,000 px.png": lambda: png(12_000, 12_000),
    "12,000 px empty.png": lambda: png(12_000, 12_000, zlib.compress(b"")),
    "100,000 px.png": lambda: png(100_000, 100_000, zlib.compress(b"")),
    "most.png": lambda: png(2**31 - 1, 2**31 - 1, zlib.compress(b"")),
    "wide.png": lambda: png(100_000, 1),
    "high.png": lambda: png(1, 100_000),
    "text.png": lambda: text_bomb(b"iTXt", b"a\0\1\0\0\0"),
    "compressed.png": lambda: text_bomb(b"zTXt", b"a\0\0"),
    "profile.png": lambda: text_bomb(b"iCCP", b"a\0\0"),
    "huge.ppm": lambda: b"P6\n100000 100000\n255\n",
    "negative.ppm": lambda: b"P6\n-96 -96\n255\n",
    "huge.bmp": lambda: b"BM" + struct.pack(
        "<IHHIIiiHHIIiiII", 99, 0, 0, 54, 40, 100_000, -100_000, 1, 24, 0, 0, 0, 0, 0, 0
    ),
    "drawing.jpg": lambda: SVG,
    "page.jpg": lambda: b"%PDF-1.4\n%%EOF",
    "script.jpg": lambda: EPS,
    "script.png": lambda: EPS,
}  # fmt: skip


@pytest.fixture
def ghostscript(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A `gs` that leaves a mark where it is started: Pillow reads EPS by it."""
    mark, program = tmp_path / "gs-ran", tmp_path / "bin" / "gs"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ntouch '{mark}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    return mark


def test_pillow_would_start_ghostscript(ghostscript: Path) -> None:
    """Else the tests below could not fail."""
    with pytest.raises((OSError, ValueError)), Image.open(io.BytesIO(EPS)) as image:
        image.load()
    assert ghostscript.exists()


@pytest.fixture
def photos_with(tmp_path: Path) -> Callable[[str], Path]:
    """A flat folder of two photographs and one of IMAGES, whose path is given."""

    def made(name: str) -> Path:
        folder = tmp_path / "photos"
        folder.mkdir()
        for i in (0, 1):
            draw_photo(i).save(folder / f"good{i}.png")
        (folder / name).write_bytes(IMAGES[name]())
        return folder / name

    return made


@pytest.mark.parametrize("name", IMAGES)
def test_a_hostile_image_is_named_or_left_out(
    bench: Bench,
    workspace: Path,
    ghostscript: Path,
    photos_with: Callable[[str], Path],
    name: str,
) -> None:
    path, started = photos_with(name), time.monotonic()
    command = ("pretrain", "random", "--image-size", 64, "--width", 0.1, "--workers", 0)
    command += ("--data", f"folder:{path.parent}", "--workspace", workspace)
    refused(bench(*command), path)
    skipping = bench(*command, "--skip-bad-images")
    assert skipping.code == 0, skipping
    assert "1 bad image skipped" in skipping.out
    record = json.loads(only(workspace, "pretrain/random-*/record.json").read_text())
    assert str(path) in record["details"]["skipped_images"][0]
    assert not ghostscript.exists()
    assert time.monotonic() - started < 15


@pytest.mark.parametrize("name", IMAGES)
def test_a_hostile_image_is_not_filled_and_no_mask(
    bench: Bench, work: Path, ghostscript: Path, photos_with: Callable[[str], Path], name: str
) -> None:
    path = photos_with(name)
    place = ("--out", "filled", "--workspace", "runs")
    result = bench("inpaint", path.parent, *place)
    assert result.code == 1, result
    assert sum(str(path) in line for line in result.err.splitlines()) == 1, result.err
    assert {found.name for found in Path("filled").iterdir()} == {"good0.png", "good1.png"}
    refused(bench("inpaint", path.parent / "good0.png", "--mask", path, *place), path)
    assert not ghostscript.exists()


def _cut_photo() -> bytes:
    file = io.BytesIO()
    draw_photo(1).save(file, "PNG")
    return file.getvalue()[:-300]


@pytest.mark.parametrize("name", [*(n for n in IMAGES if n.endswith("png")), "cut.png"])
def test_a_hostile_picture_in_a_run_is_named(
    bench: Bench, work: Path, ghostscript: Path, name: str
) -> None:
    folder = evaluation()
    path = folder / "preview.png"
    path.write_bytes(_cut_photo() if name == "cut.png" else IMAGES[name]())
    edit(folder, lambda record: record["files"].update({path.name: file_digest(path)}))
    words = ("export", "mini.toml", "--out", "again", "--workspace", "runs", "--workers", 0)
    results = [bench(*READERS["report"]), bench(*words)]
    assert not ghostscript.exists()
    for result in results:
        answered(result, path)
        if name not in ("wide.png", "high.png"):  # they are pictures
            assert result.code, result


@pytest.mark.parametrize("kind", ["gif", "tiff"])
def test_of_many_frames_the_first_is_taken(tmp_path: Path, kind: str) -> None:
    path = tmp_path / ("frames.png" if kind == "gif" else "frames.tif")
    frames = [Image.new("L", (80, 80), i % 256) for i in range(300)]
    frames[7].save(path, kind, save_all=True, append_images=frames)
    split, started = catalogue.dataset(f"folder:{tmp_path}").split("train"), time.monotonic()
    assert (split.load(0, 72, 64)[0] == 7).all()
    assert time.monotonic() - started < 2


NAMES = ["a\nbench: b.png", f"{BELL}.png", "a\rb.png", "a\x9b2J.png"]


@pytest.mark.parametrize("name", NAMES)
def test_an_image_s_name_is_one_line(bench: Bench, work: Path, name: str) -> None:
    folder = work / "photos"
    folder.mkdir()
    draw_photo(1).save(folder / "good.png")
    (folder / name).write_bytes(b"nothing")
    small = ("--image-size", 64, "--width", 0.1, "--workers", 0, "--data", f"folder:{folder}")
    command = ("pretrain", "random", *small, "--workspace", "runs")
    refused(bench(*command), "not an image")
    assert bench(*command, "--skip-bad-images").code == 0
    for content in (b"nothing", (folder / "good.png").read_bytes()):
        (folder / name).write_bytes(content)
        result = bench("inpaint", folder, "--out", "filled", "--workspace", "runs")
        plain(result.out + result.err)
        assert not any(line.startswith("bench: b.png") for line in result.err.splitlines())


def test_a_set_s_name_is_one_line(bench: Bench, work: Path) -> None:
    folder = work / f"photos\nbench: {BELL}"
    folder.mkdir()
    draw_photo(1).save(folder / "good.png")
    small = ("--image-size", 64, "--width", 0.1, "--workers", 0, "--data", f"folder:{folder}")
    result = bench("pretrain", "random", *small, "--workspace", "runs")
    plain(result.out + result.err)
    assert not any(line.startswith("bench: ") for line in result.out.splitlines())
    answered(result)


def test_a_name_that_is_too_long_stops_no_other_image(bench: Bench, work: Path) -> None:
    """Its scratch file would have a longer name than the system takes."""
    Path("photos").mkdir()
    for name in ("a", "b" * 250, "c"):
        draw_photo(1).save(Path("photos") / f"{name}.png")
    bench("inpaint", "photos", "--out", "filled", "--workspace", "runs")
    assert {"a.png", "c.png"} <= {path.name for path in Path("filled").iterdir()}


def test_many_holes_are_not_held_at_once() -> None:
    """A thousand spots in a mask of 500 kB would take 500 MB."""
    hole = np.zeros((64, 8000), bool)
    hole[32, 4::8] = True
    tracemalloc.start()
    count = sum(1 for _ in parts_of(hole))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 1000
    assert peak < 50 * hole.size


# ---- VOC


VOC: dict[str, tuple[str, Callable[[Path], object]]] = {
    "bomb": ("JPEGImages/000001.jpg", lambda path: path.write_bytes(IMAGES["30,000 px.png"]())),
    "text": ("JPEGImages/000001.jpg", lambda path: path.write_bytes(IMAGES["text.png"]())),
    "large": ("JPEGImages/000001.jpg", lambda path: path.write_bytes(IMAGES["12,000 px.png"]())),
    "script": ("JPEGImages/000001.jpg", lambda path: path.write_bytes(EPS)),
    "mask": (
        "SegmentationClass/000001.png",
        lambda path: path.write_bytes(text_bomb(b"iTXt", b"a\0\1\0\0\0")),
    ),
    "script as mask": ("SegmentationClass/000001.png", lambda path: path.write_bytes(EPS)),
    "nested": (
        "Annotations/000001.xml",
        lambda path: path.write_text(f"<annotation>{'<a>' * 30_000}{'</a>' * 30_000}</annotation>"),
    ),
    "unclosed": ("Annotations/000001.xml", lambda path: path.write_text("<annotation>" * 30_000)),
    "huge box": (
        "Annotations/000001.xml",
        lambda path: annotate(path.parent.parent, "000001", thing("dog", box=(1, 1, 1e300, 40))),
    ),
    "no box": (
        "Annotations/000001.xml",
        lambda path: annotate(path.parent.parent, "000001", thing("dog", box=(1, 1, "nan", 40))),
    ),
    "infinite box": (
        "Annotations/000001.xml",
        lambda path: annotate(path.parent.parent, "000001", thing("dog", box=(1, 1, "1e999", 40))),
    ),
}


@pytest.mark.parametrize("kind", VOC)
def test_a_hostile_file_of_voc_is_named(
    bench: Bench, tmp_path: Path, ghostscript: Path, kind: str
) -> None:
    year, (name, spoil) = add_masks(make_year(tmp_path / "VOC2007")), VOC[kind]
    spoil(year / name)
    result = bench("data", "check", f"voc:{year}", "--workers", 0)
    assert result.code == 1, result
    assert str(year / name) in result.err
    assert "000002" not in result.err
    assert not ghostscript.exists()


# ---- links in the folders that are written to


@pytest.mark.parametrize(
    "name",
    [".lock", "log.jsonl", "preview.png", ".checkpoint.pt.writing", ".record.json.writing",
     ".encoder.safetensors.writing", "."],
)  # fmt: skip
def test_a_training_writes_through_no_link(
    bench: Bench, stopped: Path, outside: Path, name: str
) -> None:
    if name == ".":
        stopped.rename(outside / "run")
        stopped.symlink_to(outside / "run")
    else:
        (stopped / name).unlink(missing_ok=True)
        (stopped / name).symlink_to(outside / "precious.txt")
    before = snapshot(outside)
    more = ["--preview"] if name == "preview.png" else ["--checkpoint-every", "1"]
    result = go_on(bench, stopped, *more)
    assert snapshot(outside) == before
    answered(result, stopped)


@pytest.mark.parametrize("name", [".lock", "predictions.npz", ".predictions.npz.writing"])
def test_an_evaluation_writes_through_no_link(
    bench: Bench, work: Path, outside: Path, name: str
) -> None:
    folder, before = evaluation(), snapshot(outside)
    for path in list(folder.iterdir()):
        path.unlink()
    (folder / name).symlink_to(outside / "precious.txt")
    result = bench("run", "mini.toml", "--workers", 0, "--workspace", "runs")
    assert snapshot(outside) == before
    answered(result, folder)


def test_what_is_written_at_once_goes_through_no_link(tmp_path: Path, outside: Path) -> None:
    before = snapshot(outside)
    for name in ("table.md", ".table.md.writing"):
        (tmp_path / name).symlink_to(outside / "precious.txt")
    write_atomically(tmp_path / "table.md", "a table")
    assert snapshot(outside) == before
    assert (tmp_path / "table.md").read_text() == "a table"
    assert not (tmp_path / "table.md").is_symlink()


@pytest.mark.parametrize("name", ["evaluation", "pretrain", "table.md"])
def test_an_export_writes_through_no_link(
    bench: Bench, work: Path, outside: Path, name: str
) -> None:
    before = snapshot(outside)
    Path("again").mkdir()
    target = outside / ("precious.txt" if "." in name else "folder")
    (Path("again") / name).symlink_to(target)
    words = ("--workspace", "runs", "--workers", 0)
    result = bench("export", "mini.toml", "--out", "again", *words)
    assert snapshot(outside) == before
    answered(result, "again")


@pytest.mark.parametrize("name", ["photo.png", ".photo.png.writing"])
def test_a_filled_image_goes_through_no_link(
    bench: Bench, work: Path, outside: Path, name: str
) -> None:
    before = snapshot(outside)
    draw_photo(1).save("photo.png")
    Path("filled").mkdir()
    (Path("filled") / name).symlink_to(outside / "precious.txt")
    result = bench("inpaint", "photo.png", "--out", "filled", "--workspace", "runs")
    assert snapshot(outside) == before
    answered(result, "filled")


# ---- imports


@pytest.mark.parametrize("start", ["n" * 200, "..", "-", "...."])
def test_an_import_stays_in_the_workspace(bench: Bench, work: Path, start: str) -> None:
    """A run's folder keeps its name, whatever that begins with."""
    folder, before = only(work / "mini", "evaluation/knn-*"), snapshot(work.parent)
    folder.rename(folder.with_name(f"{start}{folder.name[-13:]}"))
    answered(bench("import", "mini", "--workspace", "other"), "mini")
    assert snapshot(work.parent) == before
    assert {path.name for path in work.iterdir()} <= {"runs", "mini", "mini.toml", "other"}
    assert {path.name for path in Path("other").iterdir()} <= {"pretrain", "evaluation"}


# ---- suites


def run_suite(bench: Bench, work: Path, old: str, new: str, suite: str = SUITE) -> Result:
    """Run a suite with one change, on the workspace that has its runs."""
    assert old in suite
    (work / "hostile.toml").write_text(suite.replace(old, new, 1), encoding="utf-8")
    return bench("run", "hostile.toml", "--workers", 0, "--workspace", "runs")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"mini"', "[" * 100_000),
        ('"mini"', "{a=" * 100_000),
        ('"mini"', '"mini"\nseeds = [1' + "0" * 5000 + "]"),
        ('"mini"', '"mini"\nseeds = [1' + "0" * 400 + "]"),
        ('"mini"', '"mini"\nname = "twice"'),
        ('"mini"', '"\\ud800"'),
        ("0.1", "nan"),
        ("[1, 3]", "[1, 3]\nseed = 5"),
        ("[1, 3]", '[1, 3]\n"a\\nbench: b" = 5'),
        ("[1, 3]", '[1, 3]\nlayers = ["a\\nbench: b"]'),
    ],
    ids=["lists", "tables", "digits", "number", "twice", "half", "nan", "seed", "key", "layer"],
)
def test_a_hostile_suite_is_named(bench: Bench, work: Path, old: str, new: str) -> None:
    result = run_suite(bench, work, old, new)
    refused(result)
    assert result.code == 2
    assert len(result.err.splitlines()) == 1


STRANGE = ["../../x", "/etc/passwd", "a\\u0000b", "a\\nbench: b", "\\u001b]0;x\\u0007", "x" * 3000]


@pytest.mark.parametrize("name", STRANGE)
@pytest.mark.parametrize("field", ['"random"', '"knn"', '"scenes:train=60,test=20"', '"mini"'])
def test_a_name_in_a_suite_leads_nowhere(bench: Bench, work: Path, field: str, name: str) -> None:
    before = snapshot(work.parent)
    inside = {path.relative_to(work) for path in work.rglob("*")}
    result = run_suite(bench, work, field, f'"{name}"')
    answered(result)
    assert result.code == (0 if field == '"mini"' else 2)  # a suite's own name is nothing's
    assert snapshot(work.parent) == before
    made = {path.relative_to(work) for path in work.rglob("*")} - inside
    assert made == {Path("hostile.toml")}


SETS = [
    "folder:a\\u0000b", "voc:a\\u0000b", "folder:a\\nbench: b", "voc:a\\nbench: b",
    "folder:~nobody-at-all/x", "folder:" + "x" * 5000, "scenes:train=²",
    "scenes:seed=1" + "0" * 5000,
    "voc:{year},name=../../x", "voc:{year},name=/x", "voc:{year},train=../../x",
    "voc:{year},train=a\\u0000b",
]  # fmt: skip


@pytest.mark.parametrize("data", SETS)
def test_a_set_in_a_suite_leads_nowhere(bench: Bench, work: Path, data: str) -> None:
    data = data.replace("{year}", str(make_year(work / "VOC2007")))
    before = snapshot(work.parent)
    result = run_suite(bench, work, "scenes:train=60,test=20", data)
    refused(result)
    assert snapshot(work.parent) == before


FOREIGN = """
name = "foreign"
data = "scenes:train=60,test=20"
[[external]]
encoder = "alexnet"
weights = "nowhere"
image_size = 64
[[evaluate]]
evaluation = "knn"
k = [1, 3]
"""
FILES = [
    "../../outside/precious.txt", "/etc/passwd", "a\\u0000b", "a\\nbench: b", "x" * 5000,
    "~nobody-at-all/x", "package:", "package:.x", "package:..x", "package:nowhere.at.all",
    "package:a\\u0000b",
]  # fmt: skip


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("field", ["weights", "encoder"])
def test_an_encoder_in_a_suite_leads_nowhere(
    bench: Bench, work: Path, field: str, name: str
) -> None:
    before = snapshot(work.parent)
    old = '"nowhere"' if field == "weights" else '"alexnet"\nweights = "nowhere"\nimage_size = 64'
    refused(run_suite(bench, work, old, f'"{name}"', FOREIGN))
    assert snapshot(work.parent) == before


def test_a_package_of_weights_is_not_imported(
    bench: Bench, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark, package = work / "ran", work / "packages" / "hostile_weights"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(f"open({str(mark)!r}, 'w').close()\n")
    monkeypatch.syspath_prepend(package.parent)
    for name in ("hostile_weights", "hostile_weights.part"):
        refused(run_suite(bench, work, '"nowhere"', f'"package:{name}"', FOREIGN), name)
    assert not mark.exists()
    importlib.import_module("hostile_weights")  # it would have left its mark
    assert mark.exists()


# ---- in a process of its own, whose memory is bounded and measured


ROOM = 2 << 30  # bytes of data; what Python and torch take themselves is about half of it
MANY = 600  # MiB that a file unpacks to: it has room, so that no lack of it refuses the file
MORE = 350  # MiB that a command may take beside that


class _TooLong(BaseException):
    """What the alarm raises: no handler of ours catches it."""


def _peak() -> int:
    """MiB of memory at most since the last reset."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) // 1024


def _answer(words: list[str], seconds: float) -> dict[str, Any]:
    """The command line in this process: its code, or what it raised, and what it took."""

    def late(_number: int, _frame: object) -> None:
        raise _TooLong

    said, code = io.StringIO(), "nothing"
    sys.argv = ["bench", *words]
    signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    Path("/proc/self/clear_refs").write_text("5")
    try:
        with redirect_stdout(said), redirect_stderr(said):
            main()
    except SystemExit as stop:
        code = str(stop.code)
    except BaseException as error:  # for a user a traceback
        code = type(error).__name__
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return {"code": code, "said": said.getvalue(), "peak": _peak()}


def drive() -> None:
    """Carry out the command lines of stdin; the first one shows what Python and torch take."""
    commands = json.load(sys.stdin)
    resource.setrlimit(resource.RLIMIT_DATA, (ROOM, ROOM))
    print(json.dumps({name: _answer(*command) for name, command in commands.items()}))


def deflated(archive: bytes, name: str, zeros: int) -> bytes:
    """A ZIP whose stored member `name` becomes its content and `zeros` MiB after it, compressed.

    A full flush makes each MiB the same bytes, so that nothing of it has to be compressed here.
    """
    with zipfile.ZipFile(io.BytesIO(archive)) as whole:
        members = {info.filename: whole.read(info) for info in whole.infolist()}
    inner = next(member for member in members if member.endswith(name))
    streams = []
    for content in (members[inner], bytes(1 << 20)):
        press = zlib.compressobj(9, zlib.DEFLATED, -15)
        streams.append(press.compress(content) + press.flush(zlib.Z_FULL_FLUSH))
    packed = streams[0] + zeros * streams[1] + b"\x03\x00"
    checksum = zlib.crc32(members[inner])
    for _ in range(zeros):
        checksum = zlib.crc32(bytes(1 << 20), checksum)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as made:
        for member, content in members.items():
            made.writestr(member, packed if member == inner else content)
        place = made.getinfo(inner).header_offset
    found, size = bytearray(file.getvalue()), len(members[inner]) + (zeros << 20)
    central = found.rindex(inner.encode()) - 46
    for start in (place + 8, central + 10):  # method, time, checksum, both sizes
        found[start : start + 2] = struct.pack("<H", 8)
        found[start + 6 : start + 18] = struct.pack("<III", checksum, len(packed), size)
    return bytes(found)


def _spoil_predictions(work: Path) -> None:
    """600 MiB of labels in 600 kB."""
    folder, labels = evaluation(work / "runs"), zipped({"label.npy": npy((MANY << 17,))})
    (folder / "predictions.npz").write_bytes(deflated(labels, "label.npy", MANY))
    with_digest(folder)


def _spoil_weights(work: Path) -> None:
    """As many weights: the numbers of a small tensor's file say so."""
    file, few, more = io.BytesIO(), 12_345, MANY << 18
    torch.save({"conv1.0.weight": torch.zeros(few)}, file)
    old, new = b"M" + struct.pack("<H", few), b"J" + struct.pack("<i", few + more)
    with zipfile.ZipFile(file) as whole:
        members = {name: whole.read(name) for name in whole.namelist()}
    pickles = next(name for name in members if name.endswith("data.pkl"))
    assert members[pickles].count(old) == 2  # in its storage and in its shape
    members[pickles] = members[pickles].replace(old, new)
    (work / "weights.pth").write_bytes(
        deflated(zipped(members, zipfile.ZIP_STORED), "data/0", MANY)
    )


def _spoil_photos(work: Path) -> None:
    """The largest that Pillow opens, a device without an end, a pipe that nobody writes to."""
    for name in ("bomb", "device", "pipe", "loop"):
        (work / name).mkdir()
        draw_photo(1).save(work / name / "good.png")
    (work / "bomb" / "bomb.png").write_bytes(png(13_370, 13_370))
    (work / "device" / "zero.png").symlink_to("/dev/zero")
    os.mkfifo(work / "pipe" / "pipe.png")
    for split in ("train", "val"):
        (work / "loop" / split / "ant").mkdir(parents=True)
        draw_photo(1).save(work / "loop" / split / "ant" / "good.png")
        for link in ("a", "b"):
            (work / "loop" / split / "ant" / link).symlink_to(".")


SMALL = ("pretrain", "random", "--image-size", "64", "--width", "0.1", "--workers", "0")
SKIP = (*SMALL, "--workspace", "made", "--skip-bad-images", "--data")
APART: dict[str, tuple[tuple[str, ...], float, str]] = {  # words, seconds, what is named
    "sound": ((*SKIP, "folder:sound"), 60, ""),
    "bomb": ((*SMALL, "--workspace", "made", "--data", "folder:bomb"), 20, "bomb.png"),
    "device": ((*SMALL, "--workspace", "made", "--data", "folder:device"), 20, "zero.png"),
    "pipe": ((*SMALL, "--workspace", "made", "--data", "folder:pipe"), 5, "pipe.png"),
    "loop": ((*SKIP, "folder:loop"), 5, ""),
    "filled": (("inpaint", "bomb/bomb.png", "--out", "out", "--workspace", "runs"), 20, "bomb.png"),
    "mask": (
        ("inpaint", "bomb/good.png", "--mask", "bomb/bomb.png", "--out", "out",
         "--workspace", "runs"), 20, "bomb.png",
    ),
    "predictions": (("verify", "runs"), 20, "evaluation/knn-"),
    "weights": (
        (*PROBE, *SCENES, "--workspace", "made", "--encoder", "alexnet",
         "--weights", "weights.pth"), 20, "weights.pth",
    ),
    "record": (("table", "--workspace", "endless"), 20, "record.json"),
}  # fmt: skip


@pytest.fixture(scope="module")
def answers(measured: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What each command of APART came to, in one process."""
    work = Path(shutil.copytree(measured, tmp_path_factory.mktemp("apart") / "work"))
    for spoil in (_spoil_predictions, _spoil_weights, _spoil_photos):
        spoil(work)
    (work / "sound").mkdir()
    draw_photo(1).save(work / "sound" / "good.png")
    (work / "endless" / "evaluation" / "x").mkdir(parents=True)
    (work / "endless" / "evaluation" / "x" / "record.json").symlink_to("/dev/zero")
    commands = {name: (words, seconds) for name, (words, seconds, _) in APART.items()}
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    more = {"PYTHONPATH": paths, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, "-c", "import test_hostile; test_hostile.drive()"],
        cwd=work, env=os.environ | more, input=json.dumps(commands), capture_output=True, text=True,
        timeout=300,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-2000:]
    return json.loads(run.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc how much memory was taken")
@pytest.mark.parametrize("name", APART)
def test_memory_and_time_are_bounded(answers: dict[str, Any], name: str) -> None:
    """Whatever it holds: the command ends early, in little memory, and names the file."""
    found, part = answers[name], APART[name][2]
    assert found["code"] in (("1", "2") if part else ("0", "1")), found
    assert part in found["said"]
    assert found["peak"] < answers["sound"]["peak"] + MORE, found
