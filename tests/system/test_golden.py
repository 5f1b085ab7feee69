"""No number of a protocol or a pretext changes without a new version."""

import json
from pathlib import Path

import pytest
import torch
from pydantic import Field

import eval.knn
import eval.krahenbuhl16
import pretext.context_encoder
from helpers import golden
from ssl_bench.records.protocols import _installed, protocols

ENTRIES = {"pretexts": golden.pretext_entry, "protocols": golden.protocol_entry}
NAMES = [(kind, name) for kind in ENTRIES for name in golden.own(kind)]
pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="the numbers are a CPU's")


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """The workspace of all entries: they share encoders."""
    return tmp_path_factory.mktemp("golden")


def said(kind: str, name: str, workspace: Path) -> str | None:
    """What there is to say of an entry that is made now."""
    return golden.complaint(name, golden.read()[kind].get(name), ENTRIES[kind](name, workspace))


@pytest.mark.parametrize(("kind", "name"), NAMES)
def test_the_numbers_are_the_stored_ones(kind, name, runs):
    found = said(kind, name, runs)
    if found:
        pytest.fail(found)


@pytest.mark.parametrize("kind", ENTRIES)
def test_every_stored_entry_is_still_made(kind):
    assert list(golden.read()[kind]) == golden.own(kind)


# ---- what is noticed
def test_another_canonical_setting_without_a_new_version_is_noticed(monkeypatch, runs):
    """The run itself sets k and keeps the temperature: its numbers may even stay as they are."""

    class Warmer(eval.knn.VisslKNNConfig):
        temperature: float = Field(default=0.1001, description="T")

    monkeypatch.setattr(eval.knn.VisslKNN, "Config", Warmer)
    _installed.cache_clear()
    try:
        digest, found = protocols()["knn/vissl"].digest, said("protocols", "knn/vissl", runs)
    finally:
        _installed.cache_clear()
    assert digest != golden.read()["protocols"]["knn/vissl"]["digest"]
    assert found is not None
    assert found.startswith("the numbers of knn/vissl@1 have changed: raise its version, or find")
    assert "`python tests/helpers/golden.py` writes new ones" in found


@pytest.mark.parametrize("factor", [1.001, 0.999])
def test_a_loss_that_is_a_thousandth_off_is_noticed(monkeypatch, tmp_path, factor):
    right = pretext.context_encoder.masked_l2
    monkeypatch.setattr(
        pretext.context_encoder, "masked_l2", lambda *images: factor * right(*images)
    )
    found = said("pretexts", "context-encoder", tmp_path)
    assert found is not None
    assert "the numbers of context-encoder@1 have changed" in found
    assert "loss" in found


def test_another_rate_of_the_biases_is_noticed(monkeypatch, tmp_path):
    """Only what follows from the update shows it: the loss of later steps."""

    def alike(self, network):
        return torch.optim.SGD(network.parameters(), self.config.lr, 0.9, weight_decay=1e-6)

    monkeypatch.setattr(eval.krahenbuhl16.Krahenbuhl16, "optimizer", alike)
    found = said("protocols", "finetune/krahenbuhl16", tmp_path)
    assert found is not None
    assert "final_loss" in found


def test_a_new_version_asks_for_new_numbers(monkeypatch, runs):
    monkeypatch.setattr(pretext.context_encoder.ContextEncoder, "version", 2)
    found = said("pretexts", "context-encoder", runs)
    assert found is not None
    assert "are those of context-encoder@1, and it is context-encoder@2" in found


# ---- what is written
def entry(version=1, digest="d", **numbers):
    return {"version": version, "digest": digest, "numbers": numbers}


def test_what_is_new_or_has_a_new_version_is_written():
    stored = {"a": entry(loss=1.0), "gone": entry(loss=3.0)}
    found = {"a": entry(2, "e", loss=2.0), "b": entry(loss=5.0)}
    assert golden.renewed(stored, found) == (found, [])


@pytest.mark.parametrize(
    "now",
    [entry(loss=1.001), entry(digest="e", loss=1.0), entry(), entry(loss=1.0, more=0.0)],
    ids=["number", "digest", "lost", "added"],
)
def test_an_unchanged_version_is_not_overwritten(now):
    stored = {"a": entry(loss=1.0)}
    kept, refused = golden.renewed(stored, {"a": now})
    assert kept == stored
    assert len(refused) == 1
    assert "the numbers of a@1 have changed: raise its version" in refused[0]


def test_another_order_of_sums_changes_nothing():
    stored = {"a": entry(loss=1.0)}
    assert golden.renewed(stored, {"a": entry(loss=1 + 5e-5)}) == (stored, [])


@pytest.mark.parametrize(
    ("number", "same"), [(0.9, True), (0.95, True), (1.0, True), (1.00005, True), (1.1, False)]
)
def test_what_rounding_moves_may_be_anywhere_in_its_interval(number, same):
    stored = {"a": entry(map={"between": [0.9, 1.0], "because": "a rank"})}
    kept, refused = golden.renewed(stored, {"a": entry(map=number)})
    assert kept == stored
    assert (not refused) == same


def test_every_interval_has_a_reason_and_is_narrow():
    """One that lets a thousandth pass would let a change of code pass."""
    numbers = golden._flat(golden.read()).values()
    for interval in (number for number in numbers if isinstance(number, dict)):
        low, high = interval["between"]
        assert 0 < high - low < 2e-3 * low
        assert len(interval["because"]) > 20


def test_disturbing_names_what_moves_and_how_far(monkeypatch, tmp_path, capsys):
    """With numbers made up: one moves with the instructions, beyond what is stored."""
    monkeypatch.setattr(golden, "FILE", tmp_path / "golden.json")
    stored = {"pretexts": {"a": entry(loss=2.0, share=1.0)}}
    golden.FILE.write_text(json.dumps(stored))
    found = {"a loss": 2.0, "a share": 1.0}
    monkeypatch.setattr(golden, "_elsewhere", lambda values: found)
    assert golden.disturb() == 0

    def moved(values):
        return found | ({"a loss": 2.5} if "ATEN_CPU_CAPABILITY" in values else {})

    monkeypatch.setattr(golden, "_elsewhere", moved)
    assert golden.disturb() == 1
    assert "AVX2: at most 2.0e-01, a loss\n    a loss: 2.0 -> 2.5" in capsys.readouterr().out


def test_the_writer_keeps_what_it_may_not_overwrite(monkeypatch, tmp_path, capsys):
    """As from the command line, with entries made up."""
    monkeypatch.setattr(golden, "FILE", tmp_path / "golden.json")
    monkeypatch.setenv("SSL_BENCH_CACHE", str(tmp_path))
    monkeypatch.setattr(golden, "own", lambda kind: ["a"])
    made = {"pretexts": entry(loss=1.0), "protocols": entry(loss=2.0)}
    for kind in made:
        monkeypatch.setattr(
            golden, f"{kind[:-1]}_entry", lambda name, folder, kind=kind: made[kind]
        )
    assert golden.main() == 0
    assert golden.read() == {kind: {"a": made[kind]} for kind in made}
    before = golden.FILE.read_bytes()
    made["protocols"] = entry(loss=3.0)
    assert golden.main() == 1
    assert golden.FILE.read_bytes() == before
    assert "the numbers of a@1 have changed" in capsys.readouterr().err
    made["protocols"] = entry(2, loss=3.0)
    assert golden.main() == 0
    assert golden.read()["protocols"]["a"] == entry(2, loss=3.0)
