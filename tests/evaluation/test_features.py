"""Rows in memory and on disk are the same matrix; a pass gives what was asked for, and no more."""

import errno

import numpy as np
import pytest
import torch

from ssl_bench import catalogue
from ssl_bench.data.store.cache import cache_folder
from ssl_bench.data.store.squares import open_store
from ssl_bench.encoders.build import EncoderSpec, build_encoder
from ssl_bench.errors import DataError
from ssl_bench.evaluation.features import extract, feature_bytes
from ssl_bench.evaluation.rows import Rows


def matrix(count=500, size=7):
    return torch.randn(count, size, generator=torch.Generator().manual_seed(0))


def stored(values, on_disk, block_rows=64):
    rows = Rows(*values.shape, on_disk=on_disk)
    rows.__dict__["block_rows"] = block_rows
    for start in range(0, len(values), 100):
        rows.write(start, values[start : start + 100])
    return rows


@pytest.mark.parametrize("on_disk", [False, True])
def test_what_is_written_is_read_in_any_way(on_disk):
    values = matrix()
    rows = stored(values, on_disk)
    assert rows.on_disk == on_disk
    assert torch.equal(rows.whole(), values)
    assert torch.equal(torch.cat([block for _, block in rows.blocks()]), values)
    assert [span.stop - span.start for span in rows.spans()] == [64] * 7 + [52]
    assert torch.equal(rows[130:200], values[130:200])
    assert rows[500:].shape == (0, 7)


@pytest.mark.parametrize("on_disk", [False, True])
def test_a_part_of_a_part_is_that_part(on_disk):
    values = matrix()
    even, tenth = np.arange(0, 500, 2), np.arange(0, 250, 5)
    part = stored(values, on_disk).part(even)
    assert torch.equal(part.whole(), values[::2])
    again = part.part(torch.from_numpy(tenth))
    assert torch.equal(again.whole(), values[::10])
    assert again.shape == (50, 7)


@pytest.mark.parametrize("on_disk", [False, True])
def test_a_map_stays_where_its_rows_are(on_disk):
    values = matrix()
    doubled = stored(values, on_disk).map(lambda block: 2 * block[:, :3], 3)
    assert doubled.on_disk == on_disk
    assert torch.equal(doubled.whole(), 2 * values[:, :3])


def test_a_file_has_no_name_to_be_left_behind():
    before = set(cache_folder().rglob("*"))
    rows = stored(matrix(), on_disk=True)
    assert set(cache_folder().rglob("*")) == before
    assert len(rows) == 500


def test_a_full_disk_is_named(monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    rows = Rows(10, 3, on_disk=True)
    monkeypatch.setattr("os.pwrite", full)
    with pytest.raises(DataError, match=r"cannot write features .*No space left.*SSL_BENCH_CACHE"):
        rows.write(0, torch.zeros(10, 3))


@pytest.fixture(scope="module")
def seen():
    store = open_store(catalogue.dataset("scenes:train=150,test=20"), "train", 64, workers=0)
    spec = EncoderSpec(arch="alexnet", image_size=64, width=0.1, normalization=store.normalization)
    return build_encoder(spec), spec, store


def test_a_pass_serves_several_layers_and_sizes_on_disk_as_in_memory(seen):
    wanted = {"conv2": [40, 200], "pool5": [40]}
    held = extract(seen[0], seen[1], seen[2], wanted)
    filed = extract(seen[0], seen[1], seen[2], wanted, on_disk=True)
    assert set(held) == set(filed) == {("conv2", 40), ("conv2", 200), ("pool5", 40)}
    for key, rows in held.items():
        assert rows.shape[1] <= key[1]
        assert torch.equal(rows.whole(), filed[key].whole())


def test_the_bytes_are_known_beforehand(seen):
    wanted = {"conv2": [40, 200], "conv5": [100]}
    made = extract(seen[0], seen[1], seen[2], wanted)
    sizes = sum(4 * rows.shape[0] * rows.shape[1] for rows in made.values())
    assert feature_bytes(seen[0], seen[1], 150, wanted) == sizes


def test_an_encoder_that_changes_itself_is_caught(seen, monkeypatch):
    encoder, spec, store = seen
    forward = encoder.forward

    def drifting(images, layers):
        encoder.conv1[0].bias.data += 1e-3
        return forward(images, layers)

    monkeypatch.setattr(encoder, "forward", drifting)
    with pytest.raises(DataError, match="weights changed"):
        extract(encoder, spec, store, {"conv1": [40]})
