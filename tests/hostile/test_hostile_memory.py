"""Hostile files in a process of its own, whose memory and time are bounded and measured."""

import io
import json
import os
import resource
import shutil
import signal
import struct
import subprocess
import sys
import zipfile
import zlib
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.hostile import evaluation
from helpers.hostile_files import black, npy, zipped
from helpers.photos import draw_photo
from helpers.refusals import PROBE, SCENES
from helpers.spoilt import with_digest
from ssl_bench.cli.main import main

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
    (work / "bomb" / "bomb.png").write_bytes(black(13_370, 13_370))
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
        [sys.executable, "-c", "import test_hostile_memory; test_hostile_memory.drive()"],
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
