"""Wide tables are cut into blocks, and columns stand in the order of their layers."""

import re
from importlib.metadata import EntryPoint

from helpers.rows import record
from ssl_bench import catalogue
from ssl_bench.tables.blocks import blocks
from ssl_bench.tables.forms import latex, markdown
from ssl_bench.tables.names import baseline_place
from ssl_bench.tables.table import Table

LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5")


def wide(*more):
    """Nine columns of two protocols, and what is given besides."""
    made = [record("random", 0, 20.0, layer) for layer in LAYERS]
    made += [record("random", 0, 20.0, layer, protocol="knn/dinov2@1 k=3") for layer in LAYERS[1:]]
    return Table.of([*made, *more])


def test_a_wide_table_is_cut_by_protocol_and_a_narrow_one_is_whole():
    cut = blocks(wide())
    assert [(b.title, list(b.short)) for b in cut] == [
        ("linear/logreg@1", list(LAYERS)),
        ("knn/dinov2@1 k=3", list(LAYERS[1:])),
    ]
    assert {c for b in cut for c in b.columns} == set(wide().columns)
    assert re.search(r"\*\*knn/dinov2@1 k=3\*\*\n\n\| method \| +conv2 \|", markdown(wide()))
    assert latex(wide()).count(r"\begin{tabular}") == 2
    assert r"\multicolumn{4}{c}{knn/dinov2@1 k=3}" in latex(wide())
    (whole,) = blocks(Table.of([record("random", 0, 1.0)]))
    assert (whole.title, whole.short) == ("", whole.columns)


def test_layers_of_another_network_are_a_block_of_their_own():
    """Columns that no row shares: a table of dashes tells nothing."""
    other = [record("timm:x", 0, 5.0, layer, arch="timm:x") for layer in ("blocks.2", "blocks.4")]
    layers = [list(block.short) for block in blocks(wide(*other))]
    assert layers == [list(LAYERS), ["blocks.2", "blocks.4"], list(LAYERS[1:])]
    assert "timm:x" not in markdown(wide(*other)).split("\n\n")[1]


def test_a_block_holds_columns_that_share_rows_by_way_of_others():
    """conv1 and block share no row, but conv2 shares one with each."""
    other = [record("both", 0, 5.0, layer) for layer in ("conv2", "block")]
    assert [len(block.columns) for block in blocks(wide(*other))] == [6, 4]


def test_a_letter_stands_for_long_settings_that_the_legend_says():
    """One that begins as another does is another; a block's title says them in full."""
    long = "steps=40 batch_size=8 lr=0.02 head=64"
    settings = [long, f"{long} kernel=1", "steps=40"]
    made = [record("random", 0, 5.0, protocol=f"linear/logreg@1 {each}") for each in settings]
    text = markdown(Table.of(made)).split("\n")
    heads = [head.strip() for head in text[0].strip("|").split("|")[1:]]
    assert heads == [f"linear/logreg@1 {mark} pool5" for mark in ("(a)", "(b)", "steps=40")]
    assert [line for line in text if line.startswith("(")] == [
        f"(a) {settings[0]}", f"(b) {settings[1]}"
    ]  # fmt: skip
    assert settings[1] in latex(Table.of(made)).replace("\\_", "_")
    many = [record("random", 0, 5.0, f"conv{i}", protocol=f"linear/logreg@1 {long}")
            for i in range(9)]  # fmt: skip
    assert f"**linear/logreg@1 {long}**" in markdown(Table.of(many))


def test_a_table_that_repeats_a_long_protocol_is_cut():
    names = [f"linear/logreg@1 {'labels=100 ' * many}".strip() for many in (1, 2)]
    layers = [("conv5", names[0]), ("pool5", names[0]), ("pool5", names[1])]
    made = [record("random", 0, 5.0, layer, protocol=name) for layer, name in layers]
    assert [(block.title, list(block.short)) for block in blocks(Table.of(made))] == [
        (names[0], ["conv5", "pool5"]), (names[1], ["pool5"])
    ]  # fmt: skip
    # Where no heading is shorter for it, all stand side by side.
    assert [block.title for block in blocks(Table.of(made[1:]))] == [""]


def test_data_of_a_block_stands_in_its_title():
    other = [record("random", 0, 5.0, layer, data="folder:x") for layer in LAYERS]
    titles = [block.title for block in blocks(wide(*other))]
    assert titles[:2] == ["linear/logreg@1 on scenes", "linear/logreg@1 on folder:x"]


def test_a_network_tells_its_rows_apart_without_its_settings():
    """Another network has other starting weights, too; of one network, all that differs is said."""
    networks = [
        record("random", 0, 1.0, settings={"arch": "alexnet", "init": "fan-in"}),
        record("random", 0, 2.0, settings={"arch": "dcgan", "init": "dcgan"}),
    ]
    assert list(Table.of(networks).rows) == ["random arch=alexnet", "random arch=dcgan"]
    # The network of all that is not random is that of the table; a random row of another says so.
    library = {"settings": {"arch": "timm:x", "init": "own"}, "arch": "timm:x"}
    shared = [
        record("random", 0, 2.0, **library),
        record("timm:x weights=w", 0, 3.0, arch="timm:x"),
    ]
    expected = ["random arch=alexnet", "random", "timm:x weights=w"]
    assert list(Table.of([networks[0], *shared]).rows) == expected
    both = Table.of([networks[0], *shared, record("mine", 0, 1.0, settings={"arch": "alexnet"})])
    assert both.rows[:2] == ["random arch=alexnet", "random arch=timm:x"]
    settings = [{"arch": "alexnet", "mask": m, "lr": lr} for m, lr in (("a", 0.1), ("b", 0.2))]
    rows = Table.of([record("mine", 0, 1.0, settings=each) for each in settings]).rows
    assert list(rows) == ["mine mask=a lr=0.1", "mine mask=b lr=0.2"]


# ---- order of the columns, and which rows are baselines


def columns_of(*layers, **settings):
    """The layers of a table's columns, with as many depths and networks as are given."""
    depths = settings.get("depths", [None] * len(layers))
    archs = settings.get("archs", ["alexnet"] * len(layers))
    made = [
        record(arch, 0, 1.0, layer, arch=arch, depth=depth)
        for layer, depth, arch in zip(layers, depths, archs, strict=True)
    ]
    return [column.rpartition(" ")[2] for column in Table.of(made).columns]


def test_columns_stand_by_the_depth_of_their_layers():
    assert columns_of("head", "stem", "neck", depths=[2, 0, 1]) == ["stem", "neck", "head"]


def test_layers_of_records_without_a_depth_stand_by_their_numbers():
    names = ("bottleneck", "block10", "block9", "pool5", "conv2")
    assert columns_of(*names) == ["block9", "block10", "conv2", "pool5", "bottleneck"]
    assert columns_of("b2", "a1", depths=[0, None]) == ["a1", "b2"]  # one record says nothing


def test_layers_of_two_networks_stand_apart_unless_they_share_one():
    layers, archs = ("conv2", "stem", "conv1", "norm"), ("a", "b", "a", "b")
    depths = (1, 0, 0, 1)
    apart = ["conv1", "conv2", "stem", "norm"]
    assert columns_of(*layers, archs=archs, depths=depths) == apart
    shared = columns_of(*layers, "conv1", archs=[*archs, "b"], depths=[*depths, 0])
    assert shared == ["stem", "conv1", "conv2", "norm"]


def test_a_pretext_that_fails_to_import_is_no_baseline(monkeypatch):
    broken = EntryPoint("broken", "no_such_module:Pretext", "ssl_bench.pretext")
    monkeypatch.setattr(catalogue, "_found", lambda kind: {"broken": broken})
    assert baseline_place("broken") is None
    assert list(Table.of([record("broken", 0, 1.0)]).rows) == ["broken"]


def test_the_baselines_are_those_that_say_so():
    places = {name: baseline_place(name) for name in catalogue.names("pretext")}
    assert {n: p for n, p in places.items() if p is not None} == {"random": 0, "autoencoder": 1}
    assert baseline_place("timm:resnet18") is None
