"""Predictions of another form are named."""

import struct
from pathlib import Path

import pytest

from helpers.bench import Bench
from helpers.hostile import READERS, RUNS, add_twin, answered, evaluation, refused, snapshot
from helpers.hostile_files import HUGE, npy, zipped
from helpers.spoilt import named, with_digest

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
