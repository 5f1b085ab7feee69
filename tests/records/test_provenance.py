"""A number's command makes it again, to the key and to the bit."""

import json
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file, save_file

from helpers.bench import TOY, call
from helpers.refusals import contents, fails, half_written
from helpers.spoilt import answer_otherwise, edit, rekeyed
from ssl_bench import catalogue
from ssl_bench.evaluation.evaluate import evaluate
from ssl_bench.evaluation.reference import Reference
from ssl_bench.records.record import Record
from ssl_bench.records.workspace import folder_of, read_records
from ssl_bench.runtime import Runtime

PROBED, TRAINED = "scenes:train=60,test=20", "scenes:train=20,test=10,seed=2"
FEW = "--steps 2 --batch-size 4"
PRETRAINED = {
    "random": "random --init fan-in --seed 3",
    "context-encoder": f"context-encoder --mask central --lr 1e-4 {FEW} --schedule cosine",
    "autoencoder": f"autoencoder {FEW} --lr 0.0003",
    "kmeans-init": "kmeans-init --images 20 --patches 400",
}
# By the protocol that is printed.
EVALUATIONS = {
    "linear/logreg@1": f"linear-probe --strengths 2 --layer conv1 --seed 4 --data {PROBED}",
    "linear/zhang16@1": "linear-probe --protocol zhang16 --epochs 1 --batch-size 16 "
    f"--layer conv1 --layer conv2 --data {PROBED}",
    "knn/dinov2@1": f"knn --k 5,1 --temperature 0.2 --layer conv3 --data {PROBED}",
    "knn/vissl@1": f"knn --protocol vissl --k 7 --dimensions 500 --data {PROBED}",
    "svm/goyal19-voc07@1": f"svm --costs 2,0.5 --folds 2 --data {PROBED}",
    "low-shot/goyal19@1": f"low-shot --probe knn --shots 2,1 --draws 2 --data {PROBED}",
    "finetune/krahenbuhl16@1": "finetune --freeze --labels 1 --head 16 --crops 1 "
    f"--layer conv4 {FEW} --data {TRAINED}",
    "finetune/linear-head@1": "finetune --protocol linear-head --labels 2 --layer conv2 "
    f"--schedule constant {FEW} --data {TRAINED}",
    "segmentation/fcn32s@1": "segment --rescale --short 64 --longest 64 --head 16 --kernel 1 "
    f"--layer conv4 {FEW} --data {TRAINED}",
    "detection/fast-rcnn@1": "detect --proposals rpn --short 64 --longest 64 --head 16 --rois 8 "
    f"--layer conv4 {FEW} --data {TRAINED}",
}
FILLS = ("context-encoder", "mean colour", "Telea", "nearest (HOG)",
         "nearest (conv3 of context-encoder)")  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def no_pictures() -> Iterator[None]:
    """Drawing takes most of the time of fills, and no rerun looks at pictures."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ssl_bench.pictures.plots.picture_grid", lambda *_: None)
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A run of each pretext, and a number of each protocol with settings of its own."""
    folder = tmp_path_factory.mktemp("made") / "runs"
    place = ("--workers", 0, "--workspace", folder)
    for command in PRETRAINED.values():
        call("pretrain", *command.split(), *TOY, *place)
    for command in EVALUATIONS.values():
        call(*command.split(), "--encoder", "random", *place)
    fills = ("inpainting", "--hole", 20, "--layer", "conv3", "--encoder", "context-encoder")
    call(*fills, "--data", TRAINED, *place)
    return folder


def runs_of(folder: Path, name: str) -> list[Record]:
    """The runs of a pretext or of a protocol."""
    found = [r for r in read_records(folder) if name in (protocol_of(r), pretext_of(r))]
    assert found, name
    return found


def protocol_of(record: Record) -> str | None:
    return record.identity.protocol if record.kind == "evaluation" else None


def pretext_of(record: Record) -> str | None:
    return record.method if record.kind == "pretrain" else None


def fill_of(folder: Path, method: str) -> Record:
    """The one number of a row of fills."""
    (found,) = (r for r in runs_of(folder, "inpainting/pathak16@1") if r.method == method)
    return found


def only_pretrained(folder: Path, method: str, target: Path) -> Path:
    """A workspace that holds only the runs of one pretext."""
    for run in (folder / "pretrain").glob(f"{method}-*"):
        shutil.copytree(run, target / "pretrain" / run.name)
    return target


def command_of(bench, folder: Path, key: str) -> list[str]:
    """The command that `bench show` prints, as words behind `bench`."""
    result = bench.ok("show", key[:10], "--workspace", folder)
    (line,) = re.findall(r"^made again by: (.*)$", result.out, re.MULTILINE)
    words = shlex.split(line)
    assert words[0] == "bench"
    return words[1:]


def again(bench, words: list[str], folder: Path) -> set[str]:
    """The keys of what a command makes in a workspace."""
    before = {record.key for record in read_records(folder)}
    bench.ok(*words, "--workers", 0, "--workspace", folder)
    return {record.key for record in read_records(folder)} - before


# ---- show
@pytest.mark.parametrize("name", PRETRAINED)
def test_the_command_shown_makes_the_same_pretraining_key(bench, made, tmp_path, name):
    (record,) = runs_of(made, name)
    words = command_of(bench, made, record.key)
    assert again(bench, words, tmp_path / "empty") == {record.key}


@pytest.mark.parametrize("name", EVALUATIONS)
def test_the_command_shown_makes_the_same_evaluations_key(bench, made, tmp_path, name):
    place = only_pretrained(made, "random", tmp_path / "runs")
    for record in runs_of(made, name):
        words = command_of(bench, made, record.key)
        assert again(bench, words, place) == {record.key}


def test_the_commands_shown_make_the_same_fills_keys(bench, made, tmp_path):
    """The one encoder here is the one that they were made with; some rows need none."""
    place = only_pretrained(made, "context-encoder", tmp_path / "runs")
    for method in FILLS:
        key = fill_of(made, method).key
        again(bench, command_of(bench, made, key), place)
        assert key in {record.key for record in read_records(place)}, method


def test_the_command_names_what_is_not_the_default_and_nothing_else(bench, made):
    (record,) = runs_of(made, "knn/dinov2@1")
    (encoder,) = runs_of(made, "random")
    assert command_of(bench, made, record.key) == [
        "knn", "--encoder", f"random@{encoder.key[:12]}", "--layer", "conv3", "--data", PROBED,
        "--k", "1,5", "--temperature", "0.2",
    ]  # fmt: skip


def leaves(value: Any) -> Iterator[str]:
    """All that stands in a record, as text."""
    if isinstance(value, dict):
        for name, each in value.items():
            yield name
            yield from leaves(each)
    elif isinstance(value, list):
        for each in value:
            yield from leaves(each)
    else:
        yield value if isinstance(value, str) else json.dumps(value)


@pytest.mark.parametrize("name", ["context-encoder", "linear/logreg@1"])
def test_show_prints_all_that_is_in_the_record(bench, made, name):
    record = runs_of(made, name)[0]
    shown = bench("show", record.key, "--workspace", made).out
    known = json.loads((folder_of(made, record) / "record.json").read_text())
    del known["schema_version"]
    for part in known.values():
        assert all(text in shown for text in leaves(part))


@pytest.mark.parametrize("command", ["show", "rerun"])
def test_a_key_that_fits_no_run_or_several(bench, made, command):
    place = ("--workspace", made)
    fails(bench(command, "zzz", *place), 2, "no run", "'zzz'", "bench runs")
    fails(bench(command, "", *place), 2, f"{len(read_records(made))} runs", "bench runs")


def test_a_run_is_shown_as_commands_print_it(bench, made):
    """METHOD@KEY, and no other method's run of that key."""
    (record,) = runs_of(made, "random")
    shown = bench.ok("show", record.key, "--workspace", made).out
    assert bench.ok("show", f"random@{record.key}", "--workspace", made).out == shown
    other = f"autoencoder@{record.key[:12]}"
    fails(bench("show", other, "--workspace", made), 2, f"begins with '{record.key[:12]}'")


# ---- rerun
def rerun(bench, folder: Path, key: str, *words: object):
    return bench("rerun", key[:12], "--workers", 0, *words, "--workspace", folder)


def is_the_same(bench, folder: Path, record: Record) -> None:
    """A rerun finds no difference, and leaves nothing behind."""
    before, folders = contents(folder), sorted(folder.rglob("*"))
    result = rerun(bench, folder, record.key)
    assert (result.code, result.out) == (0, f"{record.key[:12]}: the same, bit for bit\n"), result
    assert contents(folder) == before
    assert sorted(folder.rglob("*")) == folders
    assert not half_written(folder)


@pytest.mark.parametrize(
    "name",
    [
        "context-encoder", "kmeans-init", "knn/vissl@1", "linear/logreg@1", "linear/zhang16@1",
        "finetune/krahenbuhl16@1", "nearest (conv3 of context-encoder)",
    ],
)  # fmt: skip
def test_a_rerun_is_the_same_bit_for_bit(bench, made, name):
    row = "nearest (conv3 of context-encoder)"
    is_the_same(bench, made, fill_of(made, row) if name == row else runs_of(made, name)[0])


@pytest.fixture
def spoilt(made, tmp_path) -> Path:
    """A copy, to spoil."""
    return Path(shutil.copytree(made, tmp_path / "runs"))


def test_a_row_without_an_encoder_is_made_again_beside_the_encoder_it_was_made_with(bench, spoilt):
    telea = fill_of(spoilt, "Telea")
    for run in (spoilt / "pretrain").iterdir():
        if not run.name.startswith("context-encoder"):
            shutil.rmtree(run)
    is_the_same(bench, spoilt, telea)


def test_a_control_is_made_again(bench, spoilt):
    """As suites make it: a probe on shuffled training labels."""
    harness = catalogue.evaluation("knn")
    requests = [(harness(harness.Config.model_validate({"k": (5,)})), ["conv3"])]
    encoder = Reference("random", spoilt)
    evaluate(requests, encoder, PROBED, spoilt, Runtime(workers=0), controls=True)
    (control,) = (r for r in read_records(spoilt, "evaluation") if r.identity.control is not None)
    is_the_same(bench, spoilt, control)
    shown = bench("show", control.key[:12], "--workspace", spoilt).out
    assert "made by a suite's controls; without them again by: bench knn" in shown


def other_bias(folder: Path) -> None:
    """Of the decoder: it is no part of the digest that the record names of the encoder."""
    path = folder / "rest.safetensors"
    weights = load_file(path)
    weights["decoder.0.bias"][0] += 1e-6
    save_file(weights, path)


# By what is said: the run, and what is changed in its folder.
CHANGES: dict[str, tuple[str, Callable[[Path], object]]] = {
    ": rest.safetensors: decoder.0.bias differs\n": ("context-encoder", other_bias),
    ": the predictions' predicted differ\n": ("knn/vissl@1", answer_otherwise),
    ": top1 was 99 and is ": (
        "knn/vissl@1", lambda folder: edit(folder, lambda r: r["metrics"].update(top1=99.0))
    ),
    ": loss was 0.5 and is ": (
        "context-encoder", lambda folder: edit(folder, lambda r: r["metrics"].update(loss=0.5))
    ),
    "the encoder's weights were 000000000000 and are ": (
        "random",
        lambda folder: edit(folder, lambda r: r["details"]["encoder"].update(digest="0" * 64)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("said", CHANGES)
def test_what_was_edited_is_found(bench, spoilt, said):
    name, change = CHANGES[said]
    (record,) = runs_of(spoilt, name)
    change(folder_of(spoilt, record))
    result = rerun(bench, spoilt, record.key)
    assert result.code == 1
    assert result.out.startswith(record.key[:12])
    assert said in result.out
    assert len(result.out.splitlines()) == 1


@pytest.mark.parametrize("name", ["random", "knn/vissl@1"])
def test_other_images_are_another_run(bench, spoilt, name):
    (record,) = runs_of(spoilt, name)
    before = contents(spoilt)
    result = rerun(bench, spoilt, record.key, "--data", "scenes:train=60,test=20,seed=1")
    assert result.code == 1
    assert "data differs: this is another run" in result.out
    assert contents(spoilt) == before


def test_without_the_encoders_weights_nothing_is_made_again(bench, spoilt):
    (record,) = runs_of(spoilt, "knn/vissl@1")
    before = sorted(spoilt.iterdir())
    for path in spoilt.rglob("encoder.safetensors"):
        path.unlink()
    fails(rerun(bench, spoilt, record.key), 1, "encoder.safetensors")
    assert sorted(spoilt.iterdir()) == before


# ---- images from a folder
def test_a_folder_is_named_by_hand_and_bad_images_are_skipped_again(bench, tiny_photos, workspace):
    """A record knows the folder's name, not where it is; two images of 27 cannot be read."""
    for path in (tiny_photos / "train" / "ant" / "0.jpg", tiny_photos / "val" / "bee" / "1.png"):
        path.write_bytes(b"no image")
    place = ("--workers", 0, "--workspace", workspace)
    data = ("--data", f"folder:{tiny_photos}", "--skip-bad-images")
    toy = ("--image-size", 64, "--width", 0.1, *data, *place)
    bench.ok("pretrain", "random", *toy)
    bench.ok("knn", "--k", 3, *data, *place)
    for record in read_records(workspace):
        result = rerun(bench, workspace, record.key, *data)
        assert result.code == 0, result.err
        assert result.out == f"{record.key[:12]}: the same, bit for bit\n"


def test_a_workspace_remembers_where_its_folder_lies(bench, tiny_photos, workspace):
    """Without what it remembers, the folder's name is no place: the remedy is said."""
    data = ("--data", f"folder:{tiny_photos}", "--workers", 0, "--workspace", workspace)
    bench.ok("pretrain", "random", "--image-size", 64, "--width", 0.1, *data)
    (record,) = read_records(workspace)
    assert f"folder:{tiny_photos}" in command_of(bench, workspace, record.key)
    is_the_same(bench, workspace, record)
    (workspace / "places.json").write_text("[no JSON")
    assert "folder:PATH" in command_of(bench, workspace, record.key)
    fails(rerun(bench, workspace, record.key), 2, "folder:photos is only a name", "folder:PATH")
    assert all(str(tiny_photos) not in p.read_text() for p in workspace.rglob("record.json"))


# ---- stale numbers
@pytest.fixture
def stale(spoilt) -> tuple[Path, Record]:
    """A number that an older version of its protocol made."""

    def older(identity):
        identity["protocol"] = "knn/vissl@0"

    (record,) = runs_of(spoilt, "knn/vissl@1")
    folder = rekeyed(folder_of(spoilt, record), older)
    edit(folder, lambda r: r["details"].update(protocol="knn/vissl@0 k=7 dimensions=500"))
    (found,) = runs_of(spoilt, "knn/vissl@0")
    return spoilt, found


def test_a_stale_number_is_shown(bench, stale):
    folder, record = stale
    result = bench.ok("show", record.key, "--workspace", folder)
    assert record.identity.encoder.weights in result.out


def test_the_tables_command_renews_a_stale_number(bench, stale):
    folder, record = stale
    table = bench("table", "--workspace", folder).out
    (note,) = (line for line in table.splitlines() if line.startswith("†"))
    (words,) = re.findall(r"`bench ([^`]+)`", note)
    made = again(bench, shlex.split(words), folder)
    (renewed,) = (r for r in read_records(folder) if r.key in made)
    assert renewed.identity.plain() == {**record.identity.plain(), "protocol": "knn/vissl@1"}
