"""The real command at toy size: images to table, answered from records the second time."""

import json

import pytest

TOY = ["--image-size", 64, "--width", 0.1, "--init", "fan-in"]
TRAIN = [*TOY, "--steps", 3, "--batch-size", 8, "--workers", 0]
DATA = ["--data", "scenes:train=60,test=30"]


@pytest.fixture
def call(bench, tmp_path):
    """`bench WORD …` in a workspace of its own; must succeed."""

    def run(*words):
        return bench.ok(*map(str, words), "--workspace", str(tmp_path / "runs"))

    return run


def record_times(tmp_path):
    return {p: p.stat().st_mtime_ns for p in (tmp_path / "runs").glob("*/*/record.json")}


def test_images_to_table_and_nothing_is_computed_twice(call, tmp_path):
    call("pretrain", "random", *TOY, *DATA)
    call("pretrain", "autoencoder", *TRAIN, *DATA)
    made = call("pretrain", "context-encoder", *TRAIN, *DATA, "--preview")
    assert "images/s" in made.out
    (preview,) = (tmp_path / "runs").glob("pretrain/context-encoder-*/preview.png")
    assert preview.read_bytes().startswith(b"\x89PNG")
    probe = call("linear-probe", "--layer", "conv3", "--layer", "pool5", *DATA, "--workers", 0)
    for word in ("random", "autoencoder", "context-encoder − random", "linear/logreg@1 conv3"):
        assert word in probe.out.replace("context-encoder |", "context-encoder − random |")
    before = record_times(tmp_path)
    assert len(before) == 3 + 6
    again = call("linear-probe", "--layer", "conv3", "--layer", "pool5", *DATA, "--workers", 0)
    assert again.out == probe.out
    assert record_times(tmp_path) == before
    assert call("table").out == probe.out
    listed = call("runs").out.splitlines()
    assert len(listed) == 1 + 9


def test_a_changed_setting_or_data_set_is_computed_anew(call, tmp_path):
    call("pretrain", "random", *TOY, *DATA)
    call("pretrain", "random", *TOY, *DATA)
    assert len(record_times(tmp_path)) == 1
    call("pretrain", "random", *TOY, "--seed", 1, *DATA)
    call("pretrain", "random", *TOY, "--data", "scenes:train=61,test=30")
    assert len(record_times(tmp_path)) == 3


def test_a_probe_records_what_was_chosen_where_and_every_prediction(call, tmp_path):
    import numpy as np

    call("pretrain", "random", *TOY, *DATA)
    call("linear-probe", "--layer", "conv2", "--strengths", 4, *DATA, "--workers", 0)
    (path,) = (tmp_path / "runs").glob("evaluation/*/record.json")
    record = json.loads(path.read_text())
    selection = record["details"]["selection"]
    assert selection["split"] == "20% of train, stratified"
    assert len(selection["points"]) == 4
    best = max(point["top1"] for point in selection["points"])
    chosen = selection["chosen"]["strength"]
    assert best == next(p["top1"] for p in selection["points"] if p["strength"] == chosen)
    assert record["details"]["protocol"] == "linear/logreg@1 strengths=4"
    with np.load(path.parent / "predictions.npz") as rows:
        assert len(rows["predicted"]) == 30
        hits = (rows["predicted"] == rows["label"]).mean()
    assert record["metrics"]["top1"] == pytest.approx(100 * hits)


def test_inspect_prints_the_published_figures(bench):
    found = json.loads(bench("inspect", "context-encoder", "--json").out)
    parts = found["parts"]
    assert parts["encoder"]["parameters"] == 2_334_080
    channelwise = {"parameters": 340_992, "weights": 331_776, "biases": 9_216, "norms": 0}
    assert parts["channelwise"] == channelwise
    assert parts["decoder"]["parameters"] == 1_180_291
    assert found["taps"]["pool5"] == [256, 6, 6]
    shapes = {layer["name"]: layer["shape"] for layer in found["layers"]}
    assert shapes["decoder.8"] == [3, 161, 161]
    text = bench("inspect", "context-encoder").out
    assert "2,334,080" in text
    assert "256×6×6" in text


def test_inspect_takes_encoders_too(bench):
    found = json.loads(bench("inspect", "timm:resnet18", "--image-size", "64", "--json").out)
    assert found["taps"]["layer4"] == [512, 2, 2]


@pytest.mark.parametrize("arch", ["timm:resnet18", "torchvision:resnet18"])
def test_other_architectures_train_and_are_probed(call, arch):
    small = ["--arch", arch, "--image-size", 64, "--init", "fan-in"]
    call("pretrain", "context-encoder", *small, "--steps", 2, "--batch-size", 4, *DATA)
    out = call("linear-probe", "--layer", "layer4", *DATA, "--strengths", 3, "--workers", 0).out
    assert "linear/logreg@1 strengths=3 layer4" in out


SUITE = """
name = "toy"
data = "scenes:train=60,test=30"
seeds = [0, 1]
[encoder]
image_size = 64
width = 0.1
init = "fan-in"
[[pretrain]]
method = "random"
[[pretrain]]
method = "context-encoder"
steps = 3
batch_size = 8
[[evaluate]]
evaluation = "linear-probe"
layers = ["pool5"]
strengths = 3
[[evaluate]]
evaluation = "finetune.linear-head"
labels = 2
steps = 3
batch_size = 8
"""


def test_a_suite_makes_its_table_and_continues(call, tmp_path):
    (tmp_path / "toy.toml").write_text(SUITE)
    first = call("run", tmp_path / "toy.toml", "--workers", 0, "--out", tmp_path / "out")
    assert "n = 2" in first.out
    assert "context-encoder − random" in first.out
    assert (tmp_path / "out" / "table.md").read_text() == first.out
    before = record_times(tmp_path)
    assert len(before) == 4 + 8 + 2  # encoders, numbers, the first seed's controls
    starts = {}
    for path in (tmp_path / "runs").glob("pretrain/*/record.json"):
        record = json.loads(path.read_text())
        seed = record["identity"]["config"]["seed"]
        starts.setdefault(seed, set()).add(record["details"]["encoder"]["start"])
    assert [len(digests) for digests in starts.values()] == [1, 1]  # a seed's methods share it
    assert starts[0] != starts[1]
    lost = next(p for p in before if "finetune" in p.parent.name)
    lost.unlink()  # a run that was killed before its record
    again = call("run", tmp_path / "toy.toml", "--workers", 0)
    assert again.out == first.out
    changed = {p for p, t in record_times(tmp_path).items() if before[p] != t}
    assert changed == {lost}


def test_single_seeds_are_compared_over_the_same_images(call, tmp_path):
    """With one seed each, as `bench linear-probe` gives them, the pairs are the test images."""
    import numpy as np

    call("pretrain", "random", *TOY, *DATA)
    call("pretrain", "context-encoder", *TRAIN, *DATA)
    out = call("linear-probe", "--layer", "conv3", "--strengths", 3, *DATA, "--workers", 0).out
    (line,) = [x for x in out.splitlines() if x.startswith("| context-encoder − random")]
    hits = {}
    for path in (tmp_path / "runs").glob("evaluation/*/predictions.npz"):
        with np.load(path) as rows:
            hits[path.parent.name.split("conv3-")[1][:6]] = rows["label"] == rows["predicted"]
    gain = 100 * (hits["contex"].mean() - hits["random"].mean())
    assert f"{gain:+.1f}".replace("-", "−") in line
    assert "*" in line


def test_a_weights_file_is_an_encoder(call, tmp_path):
    call("pretrain", "random", *TOY, *DATA)
    (weights,) = (tmp_path / "runs").glob("pretrain/*/encoder.safetensors")
    out = call("linear-probe", "--encoder", weights, *DATA, "--strengths", 3, "--workers", 0).out
    assert "| random-" in out


def test_the_shipped_suites_are_valid(tmp_path, monkeypatch):
    from ssl_bench.evaluation.suite_file import read_suite, shipped

    for year in ("VOC2007", "VOC2012"):
        lists = tmp_path / "VOCdevkit" / year / "ImageSets" / "Segmentation"
        for folder in ("Annotations", "ImageSets/Main", "JPEGImages", "ImageSets/Segmentation"):
            (tmp_path / "VOCdevkit" / year / folder).mkdir(parents=True)
        for name in ("train", "trainaug", "val"):
            (lists / f"{name}.txt").write_text("a\n")
    for name in ("imagenette-128", "miniplaces-128"):
        (tmp_path / name / "train").mkdir(parents=True)
    monkeypatch.setenv("SSL_BENCH_DATA", str(tmp_path))
    assert "quickstart" in shipped()
    assert all(read_suite(name).name == name for name in shipped())
