"""Rows have short names: labels that a suite gives, beside the tables in family.json."""

import pytest

from helpers.predictions import answers, changed, stored
from helpers.refusals import fails
from ssl_bench.errors import UsageError
from ssl_bench.evaluation.suite_file import read_suite
from ssl_bench.tables.family import Contrast, Family, Label, family_beside, family_of
from ssl_bench.tables.forms import write_table
from ssl_bench.tables.table import Table

SUITE = """
name = "two"
[encoder]
image_size = 64
[[pretrain]]
method = "random"
[[pretrain]]
method = "context-encoder"
label = "context encoder, regions"
mask = "random-region"
[[pretrain]]
method = "context-encoder"
label = "context encoder, centre"
mask = "central"
[[external]]
encoder = "timm:resnet18"
weights = "some/where.pth"
label = "supervised"
layers = ["layer4"]
[[evaluate]]
evaluation = "linear-probe"
layers = ["pool5"]
"""
SHARED = {"steps": 1, "image_size": 64}
LABELS = "context encoder, regions", "context encoder, centre"


def suite(folder, text=SUITE):
    (folder / "two.toml").write_text(text)
    return str(folder / "two.toml")


def records(workspace, *settings, method="context-encoder"):
    """A record for each of these settings of a pretext."""
    made = stored(workspace, method, answers(6, 4))
    assert made.identity.encoder
    identities = [made.identity.encoder.model_copy(update={"weights": str(i)}) for i in range(9)]
    return [
        changed(
            made.model_copy(
                update={"identity": made.identity.model_copy(update={"encoder": identity})}
            ),
            details={"pretraining": {"seed": 0, **SHARED, **each}},
        )
        for identity, each in zip(identities, settings, strict=False)
    ]


def test_a_suite_names_the_rows_of_its_entries(tmp_path):
    """By all settings of the entry: the defaults count, the seed does not."""
    family = family_of(read_suite(suite(tmp_path)))
    labels = {each.label: each for each in family.labels}
    assert [*labels] == [*LABELS, "supervised"]
    regions = labels[LABELS[0]]
    assert (regions.settings["mask"], regions.settings["image_size"]) == ("random-region", 64)
    assert "seed" not in regions.settings
    (other,) = records(tmp_path, {"mask": "central", "seed": 3})
    for label, there in zip(LABELS, (False, True), strict=True):
        whole = changed(
            other, details={"pretraining": {**labels[label].settings, "mask": "central", "seed": 3}}
        )
        assert (family.label_of(whole) == label) is there
    elsewhere = changed(other, method="timm:resnet18 weights=where", details={"pretraining": None})
    assert family.label_of(elsewhere) == "supervised"
    assert family.label_of(changed(elsewhere, method="timm:resnet18 weights=other")) is None


def test_labels_travel_with_the_tables_and_decide_no_test(tmp_path):
    labels = [Label(label=name, method="context-encoder", settings={**SHARED, "mask": mask})
              for name, mask in zip(LABELS, ("random-region", "central"), strict=True)]  # fmt: skip
    family = Family(labels=labels, contrasts=[Contrast(a=LABELS[0], b=LABELS[1])])
    made = records(tmp_path, {"mask": "random-region"}, {"mask": "central"})
    table = Table.of(made, tmp_path, family)
    assert table.rows == [*LABELS]
    assert table.declared == [(*LABELS, "linear/logreg@1 pool5")]
    write_table(table, tmp_path)
    assert family_beside(tmp_path) == family
    assert Table.of(made, tmp_path).rows == [*LABELS]
    assert not Family(labels=labels).tests
    plain = Table.of(made, tmp_path, Family())
    assert plain.rows == [f"context-encoder mask={m}" for m in ("random-region", "central")]


def test_rows_of_one_label_are_told_apart_by_their_settings(tmp_path):
    """As a file of hand might say it."""
    both = [
        Label(label="ours", method="context-encoder", settings={**SHARED, "lr": lr})
        for lr in (0.1, 0.2)
    ]
    family = Family(labels=both)
    made = records(tmp_path, {"lr": 0.1}, {"lr": 0.2})
    assert Table.of(made, tmp_path, family).rows == ["ours lr=0.1", "ours lr=0.2"]


def test_rows_without_a_label_are_told_apart_from_those_with_one(tmp_path):
    family = Family(
        labels=[Label(label="ours", method="context-encoder", settings={**SHARED, "lr": 0.1})]
    )
    made = records(tmp_path, {"lr": 0.1}, {"lr": 0.2})
    assert Table.of(made, tmp_path, family).rows == ["ours", "context-encoder lr=0.2"]


def test_what_all_networks_share_is_said_once(tmp_path):
    made = records(tmp_path, {"lr": 0.1}, {"lr": 0.2})
    table = Table.of(made, tmp_path)
    assert "image_size=64" in table.shared
    assert not any("image_size" in row for row in table.rows)
    wide = Table.of(records(tmp_path, {"image_size": 96}, {}), tmp_path)
    assert "image_size" not in wide.shared
    assert wide.rows == ["context-encoder image_size=96", "context-encoder image_size=64"]


@pytest.mark.parametrize("label", [LABELS[0], "random", "a\\u001bb", ""])
def test_a_label_is_one_rows_and_can_be_printed(bench, tmp_path, label):
    text = SUITE.replace(LABELS[1], label)
    with pytest.raises(UsageError, match="label"):
        read_suite(suite(tmp_path, text))
    fails(bench("run", suite(tmp_path, text), "--workspace", tmp_path / "w"), 2, "label")
