"""Bad input gives one line that names the thing and the remedy, the right exit code, and no loss.

Everything goes through the real command line. Exit code 2 is a request that cannot be met, 1 is
data that are not what they should be.
"""

import errno
import json
import os
import resource
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Bench, Result, draw_photo
from safetensors.torch import load_file, save_file

from ssl_bench.errors import DataError

SCENES = ("--data", "scenes:train=60,test=20")
TOY = ("--image-size", "64", "--width", "0.1", "--workers", "0")
STEPS = ("--steps", "4", "--batch-size", "4")
PRETRAIN = ("pretrain", "context-encoder", *TOY, *STEPS)
PROBE = ("linear-probe", "--workers", "0", "--strengths", "2")
FINETUNE = ("finetune", "--workers", "0", "--steps", "2", "--batch-size", "4")


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def finished(workspace: Path, bench: Bench) -> Path:
    """A workspace with one finished run, and photographs' sizes in its encoder."""
    assert bench("pretrain", "random", *TOY, *SCENES, "--workspace", workspace).code == 0
    return workspace


def fails(result: Result, code: int, *parts: str) -> None:
    """One line at the end of stderr says it all, and the exit code tells whose fault it is."""
    lines = result.err.rstrip("\n").splitlines()
    assert lines, result
    assert result.code == code, result
    assert lines[-1].startswith(("bench: ", "Error: ")), result.err
    assert not any(line.startswith(("bench: ", "Error: ")) for line in lines[:-1]), result.err
    assert "Traceback" not in result.err
    for part in parts:
        assert part in lines[-1], f"{part!r} is not in {lines[-1]!r}"


def contents(folder: Path) -> dict[Path, bytes]:
    """Every finished run's files, byte by byte."""
    runs = [record.parent for record in folder.glob("*/*/record.json")]
    return {file: file.read_bytes() for run in runs for file in run.rglob("*") if file.is_file()}


def only(folder: Path, pattern: str) -> Path:
    found = list(folder.glob(pattern))
    assert len(found) == 1, found
    return found[0]


def half_written(folder: Path) -> list[Path]:
    """Scratch files, and weights that cannot be read."""
    left = [p for p in folder.rglob("*") if "writing" in p.name or "decoding" in p.name]
    for path in folder.rglob("*.safetensors"):
        try:
            load_file(path)
        except Exception:  # whatever is wrong with it
            left.append(path)
    return left


# ---- names

TYPOS = [
    (["pretrian"], "pretrian", "did you mean pretrain?"),
    (["linear-prob"], "linear-prob", "did you mean linear-probe?"),
    (["pretrain", "context-encodr"], "context-encodr", "did you mean context-encoder"),
    (["pretrain", "zzz"], "zzz", "known: autoencoder, context-encoder, random"),
    ([*PRETRAIN, "--data", "scens"], "scens", "did you mean scenes?"),
    ([*PRETRAIN, "--data", "scenes:trian=9"], "trian", "did you mean train?"),
    ([*PRETRAIN, "--data", "scenes:train=0"], "'0'", "takes a whole number"),
    ([*PRETRAIN, "--data", "scenes:train"], "scenes:train", "takes a whole number"),
    ([*PRETRAIN, "--data", "folder:"], "folder", "folder:PATH"),
    ([*PRETRAIN, "--arch", "alexnt"], "alexnt", "did you mean alexnet?"),
    ([*PRETRAIN, "--stepz", "3"], "--stepz", "--steps"),
    (["run", "quickstrat"], "quickstrat", "did you mean quickstart?"),
    (["inspect", "alexnt"], "alexnt", "did you mean alexnet?"),
]


@pytest.mark.parametrize(("words", "name", "remedy"), TYPOS, ids=[name for _, name, _ in TYPOS])
def test_unknown_name(
    bench: Bench, workspace: Path, words: list[str], name: str, remedy: str
) -> None:
    place = ["--workspace", workspace] if words[0] in ("pretrain", "run") and words[1:] else []
    fails(bench(*words, *place), 2, name, remedy)
    assert not list(workspace.glob("*/*"))


def test_typo_costs_no_decoding(
    bench: Bench, workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_BENCH_CACHE", str(tmp_path / "cache"))
    fails(bench(*PRETRAIN, *SCENES, "--arch", "alexnt", "--workspace", workspace), 2, "alexnt")
    assert not (tmp_path / "cache").exists()


def test_unknown_layer(bench: Bench, finished: Path) -> None:
    before = contents(finished)
    result = bench(*PROBE, *SCENES, "--layer", "pol5", "--workspace", finished)
    fails(result, 2, "layer 'pol5'", "did you mean pool5?")
    assert contents(finished) == before


@pytest.mark.parametrize(
    ("name", "near"), [("timm:resnt18", "resnet18"), ("torchvision:alexnt", "alexnet")]
)
def test_unknown_library_model(bench: Bench, workspace: Path, name: str, near: str) -> None:
    short = name.partition(":")[2]
    evaluated = bench(*PROBE, *SCENES, "--encoder", name, "--workspace", workspace)
    fails(evaluated, 2, f"'{short}'", "did you mean", near)
    trained = bench(*PRETRAIN, *SCENES, "--width", "1", "--arch", name, "--workspace", workspace)
    fails(trained, 2, f"'{short}'", "did you mean", near)


@pytest.mark.parametrize(
    ("reference", "parts"),
    [
        ("random@ffff", ("random", "'ffff'", "bench runs")),
        ("randm", ("'randm'", "did you mean random?")),
        ("context-encoder", ("'context-encoder'", "bench pretrain")),
        ("nowhere.safetensors", ("nowhere.safetensors", "weights file")),
        ("no/where.safetensors", ("no/where.safetensors", "weights file")),
        ("timm:", ("timm:NAME",)),
    ],
)
def test_unknown_encoder(
    bench: Bench, finished: Path, reference: str, parts: tuple[str, ...]
) -> None:
    before = contents(finished)
    result = bench(*PROBE, *SCENES, "--encoder", reference, "--workspace", finished)
    fails(result, 2, *parts)
    assert contents(finished) == before


def test_run_folder_as_encoder(bench: Bench, finished: Path) -> None:
    """`bench pretrain` prints this path: given back, it works or says what to give instead."""
    folder = only(finished, "pretrain/random-*")
    result = bench(*PROBE, *SCENES, "--encoder", folder, "--workspace", finished)
    if result.code:
        fails(result, 2, str(folder), "encoder.safetensors")


def test_empty_workspace(bench: Bench, workspace: Path) -> None:
    result = bench(*PROBE, *SCENES, "--workspace", workspace)
    fails(result, 2, str(workspace), "bench pretrain")
    fails(bench("table", "--workspace", workspace), 2, str(workspace), "bench linear-probe")
    listed = bench("runs", "--workspace", workspace)
    assert listed.code == 0
    assert not workspace.exists()


# ---- values of options

VALUES = [
    ("--steps", "0"),
    ("--steps", "-3"),
    ("--steps", "many"),
    ("--lr", "-1"),
    ("--lr", "0"),
    ("--lr", "nan"),
    ("--lr", "inf"),
    ("--image-size", "20"),
    ("--image-size", "40"),
    ("--width", "0"),
    ("--width", "5"),
    ("--seed", "-1"),
    ("--seed", str(2**70)),
    ("--mask", "foo"),
    ("--init", "foo"),
    ("--schedule", "foo"),
    ("--precision", "foo"),
    ("--batch-size", "four"),
    ("--batch-size", "0"),
    ("--devices", "x"),
    ("--devices", "0"),
    ("--workers", "-1"),
    ("--checkpoint-every", "x"),
    ("--checkpoint-every", "0"),
    ("--checkpoint-every", "5m"),
]


@pytest.mark.parametrize(("option", "value"), VALUES)
def test_bad_value_for_pretrain(bench: Bench, workspace: Path, option: str, value: str) -> None:
    result = bench(*PRETRAIN, *SCENES, option, value, "--workspace", workspace)
    if (option, value) == ("--image-size", "40"):
        fails(result, 2, "alexnet", "at least 64 px", "40")
    else:
        fails(result, 2, option)
    assert not list(workspace.glob("*/*"))


@pytest.mark.parametrize(
    ("command", "option", "value"),
    [
        (PROBE, "--dimensions", "0"),
        (PROBE, "--strengths", "1"),
        (PROBE, "--held-out", "1.5"),
        (PROBE, "--held-out", "nan"),
        (PROBE, "--seed", str(2**40)),
        (FINETUNE, "--labels", "-1"),
        (FINETUNE, "--labels", "7"),
        (FINETUNE, "--schedule", "cosin"),
        (FINETUNE, "--lr", "inf"),
    ],
)
def test_bad_value_for_evaluation(
    bench: Bench, finished: Path, command: tuple[str, ...], option: str, value: str
) -> None:
    before = contents(finished)
    few = ("--labels", "2") if command == FINETUNE else ()
    result = bench(*command, *few, *SCENES, option, value, "--workspace", finished)
    fails(result, 2, option)
    assert contents(finished) == before


@pytest.mark.parametrize(
    ("option", "value"), [("--image-size", "20"), ("--width", "9"), ("--width", "-1")]
)
@pytest.mark.parametrize("name", ["context-encoder", "alexnet"])
def test_bad_value_for_inspect(bench: Bench, name: str, option: str, value: str) -> None:
    fails(bench("inspect", name, option, value), 2, value)


# ---- folders and images


def test_missing_folder(bench: Bench, workspace: Path, tmp_path: Path) -> None:
    path = tmp_path / "nowhere"
    result = bench(*PRETRAIN, "--data", f"folder:{path}", "--workspace", workspace)
    fails(result, 1, str(path), "existing")
    assert not workspace.exists()


@pytest.mark.parametrize("layout", ["", "train"])
def test_empty_folder(bench: Bench, workspace: Path, tmp_path: Path, layout: str) -> None:
    path = tmp_path / "empty"
    (path / layout).mkdir(parents=True)
    result = bench(*PRETRAIN, "--data", f"folder:{path}", "--workspace", workspace)
    fails(result, 1, str(path / layout), ".jpg" if not layout else "<class>")
    assert not workspace.exists()


@pytest.mark.parametrize("split", ["train", "val"])
def test_class_folder_without_images(
    bench: Bench, finished: Path, tiny_photos: Path, split: str
) -> None:
    """In train it is an error; in val a class may have no images, but not all of them none."""
    emptied = ["bee"] if split == "train" else ["ant", "bee", "cat"]
    for name in emptied:
        shutil.rmtree(tiny_photos / split / name)
        (tiny_photos / split / name).mkdir()
    result = bench(*PROBE, "--data", f"folder:{tiny_photos}", "--workspace", finished)
    folder = tiny_photos / split / "bee" if split == "train" else tiny_photos / split
    fails(result, 1, str(folder), "has no images")


def test_flat_folder_cannot_be_evaluated_on(
    bench: Bench, finished: Path, tiny_photos: Path
) -> None:
    flat = tiny_photos / "val" / "ant"
    result = bench(*PROBE, "--data", f"folder:{flat}", "--workspace", finished)
    fails(result, 1, str(flat), "train/ and val/")


def test_train_without_val(bench: Bench, finished: Path, tiny_photos: Path) -> None:
    shutil.rmtree(tiny_photos / "val")
    result = bench(*PROBE, "--data", f"folder:{tiny_photos}", "--workspace", finished)
    fails(result, 1, str(tiny_photos), "val/")


def spoil(path: Path, how: str) -> None:
    if how == "truncated":
        path.write_bytes(path.read_bytes()[:-300])
    elif how == "text":
        path.write_text("this is no image")
    elif how == "empty":
        path.write_bytes(b"")
    else:
        draw_photo(0, 40, 40).save(path)


DAMAGES = {
    "truncated": "cannot be read as an image",
    "text": "not an image",
    "empty": "not an image",
    "small": "smaller than the 64 px crop: lower --image-size",
}


@pytest.mark.parametrize("how", DAMAGES)
def test_bad_image(bench: Bench, finished: Path, tiny_photos: Path, how: str) -> None:
    before = contents(finished)
    path = tiny_photos / "train" / "bee" / "3.png"
    spoil(path, how)
    command = [*PRETRAIN, "--data", f"folder:{tiny_photos}", "--workspace", finished]
    fails(bench(*command), 1, str(path), DAMAGES[how], "--skip-bad-images")
    assert contents(finished) == before
    skipping = bench(*command, "--skip-bad-images")
    assert skipping.code == 0, skipping
    assert "1 bad image" in skipping.out
    record = json.loads(only(finished, "pretrain/context-*/record.json").read_text())
    assert len(record["details"]["skipped_images"]) == 1
    assert str(path) in record["details"]["skipped_images"][0]
    assert record["details"]["images"] == 17


def test_several_bad_images_are_counted(bench: Bench, workspace: Path, tiny_photos: Path) -> None:
    for name in ("ant", "bee", "cat"):
        spoil(tiny_photos / "train" / name / "3.png", "text")
    command = [*PRETRAIN, "--data", f"folder:{tiny_photos}", "--workspace", workspace]
    fails(bench(*command), 1, "ant/3.png", "2 more")
    assert "3 bad images" in bench(*command, "--skip-bad-images").out


def test_nothing_but_bad_images(bench: Bench, workspace: Path, tmp_path: Path) -> None:
    """There is nothing left to skip to, so the advice must not be to skip."""
    flat = tmp_path / "flat"
    flat.mkdir()
    spoil(flat / "a.jpg", "text")
    command = [*PRETRAIN, "--data", f"folder:{flat}", "--workspace", workspace]
    result = bench(*command, "--skip-bad-images")
    fails(result, 1, str(flat / "a.jpg"))
    assert "or pass --skip-bad-images" not in result.err


def test_evaluation_records_what_it_skipped(
    bench: Bench, finished: Path, tiny_photos: Path
) -> None:
    bad = [tiny_photos / "train" / "bee" / "3.png", tiny_photos / "val" / "ant" / "1.png"]
    for path in bad:
        spoil(path, "text")
    command = [*PROBE, "--data", f"folder:{tiny_photos}", "--workspace", finished]
    fails(bench(*command), 1, "3.png", "--skip-bad-images")
    result = bench(*command, "--skip-bad-images")
    assert result.code == 0, result
    record = only(finished, "evaluation/*/record.json").read_text()
    for path in bad:
        assert path.name in record
    assert "bad image" in result.out


def test_single_class(bench: Bench, finished: Path, tiny_photos: Path) -> None:
    before = contents(finished)
    for split in ("train", "val"):
        for name in ("bee", "cat"):
            shutil.rmtree(tiny_photos / split / name)
    for command in (PROBE, (*FINETUNE, "--labels", "2")):
        result = bench(*command, "--data", f"folder:{tiny_photos}", "--workspace", finished)
        fails(result, 1, "1 class", "two")
    assert contents(finished) == before


def test_class_in_val_that_train_lacks(bench: Bench, finished: Path, tiny_photos: Path) -> None:
    before = contents(finished)
    shutil.rmtree(tiny_photos / "train" / "bee")
    result = bench(*PROBE, "--data", f"folder:{tiny_photos}", "--workspace", finished)
    fails(result, 1, str(tiny_photos / "val"), "'bee'", "train/")
    assert contents(finished) == before


def test_class_whose_images_are_all_bad(bench: Bench, finished: Path, tiny_photos: Path) -> None:
    for path in (tiny_photos / "train" / "bee").iterdir():
        spoil(path, "text")
    command = [*PROBE, "--data", f"folder:{tiny_photos}", "--workspace", finished]
    fails(bench(*command, "--skip-bad-images"), 1, "'bee'", "train")


def test_too_few_images_for_few_labels(bench: Bench, finished: Path, tiny_photos: Path) -> None:
    before = contents(finished)
    (tiny_photos / "train" / "cat" / "0.jpg").unlink()
    command = [*FINETUNE, "--data", f"folder:{tiny_photos}", "--workspace", finished]
    fails(bench(*command, "--labels", "6"), 2, "--labels 6", "'cat'", "5 images")
    assert contents(finished) == before


def test_too_few_images_to_hold_out(bench: Bench, finished: Path, tiny_photos: Path) -> None:
    for name in ("ant", "bee", "cat"):
        for path in sorted((tiny_photos / "train" / name).iterdir())[1:]:
            path.unlink()
    result = bench(*PROBE, "--data", f"folder:{tiny_photos}", "--workspace", finished)
    fails(result, 1, "hold out", "3 images")


# ---- training that diverges


@contextmanager
def weights_spoilt_at(step: int) -> Iterator[None]:
    """The loss of a step is finite and its update is not: a gradient that overflows does this."""
    from pretext.context_encoder import ContextEncoder

    train_step = ContextEncoder.train_step

    def spoil_weights(self: Any, images: torch.Tensor, now: Any) -> Any:
        values = train_step(self, images, now)
        if now.index == step:
            next(self.encoder.parameters()).data.fill_(torch.nan)
        return values

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ContextEncoder, "train_step", spoil_weights)
        yield


@pytest.mark.parametrize("rate", ["1e20", "1e30"])
def test_loss_that_is_not_finite(bench: Bench, finished: Path, rate: str) -> None:
    before = contents(finished)
    result = bench(
        *PRETRAIN, *SCENES, "--lr", rate, "--checkpoint-every", "1", "--workspace", finished
    )
    fails(result, 1, "step", "--lr")
    assert contents(finished) == before
    assert not list(finished.glob("pretrain/context-*/record.json"))
    assert "the last checkpoint is kept" in result.err
    state = torch.load(only(finished, "pretrain/context-*/checkpoint.pt"), weights_only=True)
    assert state["step"] == 1
    assert all(t.isfinite().all() for t in state["task"].values())
    assert half_written(finished) == []


@pytest.mark.parametrize("rate", ["1e37", "1e38", "1e39", "1e300"])
def test_rate_beyond_float32(bench: Bench, workspace: Path, rate: str) -> None:
    """Torch itself refuses such a step: as a request or as a loss, but not with its traceback."""
    result = bench(*PRETRAIN, *SCENES, "--lr", rate, "--workspace", workspace)
    fails(result, result.code or 1, "--lr")
    assert not list(workspace.glob("*/*/record.json"))


def test_checkpoint_never_takes_in_spoilt_weights(bench: Bench, workspace: Path) -> None:
    """The last good checkpoint is the one before the update that went wrong."""
    command = [*PRETRAIN, *SCENES, "--checkpoint-every", "1", "--workspace", workspace]
    with weights_spoilt_at(1):
        fails(bench(*command), 1, "step", "--lr", "checkpoint is kept")
    state = torch.load(only(workspace, "pretrain/context-*/checkpoint.pt"), weights_only=True)
    assert state["step"] == 1
    assert all(t.isfinite().all() for t in state["task"].values())
    assert bench(*command).code == 0  # what was kept can be gone on from


def test_spoilt_weights_never_make_a_record(bench: Bench, workspace: Path) -> None:
    """No loss is computed after the last update: the weights must be looked at."""
    with weights_spoilt_at(3):
        fails(bench(*PRETRAIN, *SCENES, "--workspace", workspace), 1, "step", "--lr")
    assert not list(workspace.glob("*/*/record.json"))


def test_fine_tuning_that_diverges(bench: Bench, finished: Path) -> None:
    before = contents(finished)
    command = ["finetune", "--workers", "0", "--steps", "6", "--batch-size", "4", "--labels", "2"]
    result = bench(*command, *SCENES, "--lr", "1e30", "--workspace", finished)
    fails(result, 1, "step", "--lr")
    assert contents(finished) == before
    assert not list(finished.glob("evaluation/*/record.json"))


# ---- damaged files


@contextmanager
def interrupted_at(step: int) -> Iterator[None]:
    """Ctrl-C arrives in the middle of a step."""
    from pretext.context_encoder import ContextEncoder

    train_step = ContextEncoder.train_step

    def interrupt(self: Any, images: torch.Tensor, now: Any) -> Any:
        if now.index == step:
            signal.raise_signal(signal.SIGINT)
        return train_step(self, images, now)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ContextEncoder, "train_step", interrupt)
        yield


@pytest.mark.parametrize("damage", ["cut", "emptied", "foreign", "no weights"])
def test_damaged_checkpoint(bench: Bench, finished: Path, damage: str) -> None:
    before = contents(finished)
    command = [*PRETRAIN, *SCENES, "--workspace", finished]
    with interrupted_at(1):
        fails(bench(*command), 130, "step 2 of 4", "the same command continues")
    path = only(finished, "pretrain/context-*/checkpoint.pt")
    whole = path.read_bytes()
    if damage == "cut":
        path.write_bytes(whole[: len(whole) // 2])
    elif damage == "emptied":
        path.write_bytes(b"")
    elif damage == "foreign":
        path.write_bytes(b"something else entirely")
    else:
        torch.save({"step": 2, "task": {}, "optimizers": []}, path)
    fails(bench(*command), 1, str(path), "damaged", "remove it")
    assert contents(finished) == before
    path.unlink()
    assert bench(*command).code == 0
    assert contents(finished).items() > before.items()


@pytest.mark.parametrize("damage", ["cut", "emptied", "foreign", "altered", "not text"])
def test_damaged_record(bench: Bench, finished: Path, damage: str) -> None:
    assert bench(*PROBE, *SCENES, "--workspace", finished).code == 0
    again = bench("pretrain", "random", *TOY, *SCENES, "--seed", "1", "--workspace", finished)
    assert again.code == 0
    path = max(finished.glob("pretrain/random-*/record.json"), key=lambda p: p.stat().st_mtime_ns)
    text = path.read_text()
    path.write_bytes(
        {
            "cut": text[: len(text) // 2].encode(),
            "emptied": b"",
            "foreign": b'{"some": "json"}',
            "altered": text.replace('"seed": 1', '"seed": 2').encode(),
            "not text": b"\xff\xfe\x00",
        }[damage]
    )
    before = contents(finished)
    command = ["pretrain", "random", *TOY, *SCENES, "--seed", "1", "--workspace", finished]
    fails(bench(*command), 1, str(path), "remove", str(path.parent), "run again")
    fails(bench(*PROBE, *SCENES, "--workspace", finished), 1, str(path), "remove")
    listed = bench("runs", "--workspace", finished)
    assert listed.code == 0
    assert str(path) in listed.out
    assert listed.out.count("random") >= 3  # the damaged one, its sound brother, the evaluation
    assert bench("table", "--workspace", finished).code == 0  # of evaluations, all sound
    assert contents(finished) == before
    shutil.rmtree(path.parent)
    assert bench(*command).code == 0


def test_damaged_evaluation_record(bench: Bench, finished: Path) -> None:
    assert bench(*PROBE, *SCENES, "--workspace", finished).code == 0
    path = only(finished, "evaluation/*/record.json")
    path.write_text(path.read_text()[:100])
    for command in (["table"], [*PROBE, *SCENES]):
        fails(bench(*command, "--workspace", finished), 1, str(path), "remove")


@pytest.mark.parametrize("damage", ["cut", "lacking", "extra", "misshapen", "foreign", "other"])
def test_weights_that_do_not_fit(bench: Bench, finished: Path, tmp_path: Path, damage: str) -> None:
    before = contents(finished)
    source = only(finished, "pretrain/random-*/encoder.safetensors")
    path = tmp_path / "weights.safetensors"
    state = load_file(source)
    record = json.loads((source.parent / "record.json").read_text())
    header = {"encoder": json.dumps(record["details"]["encoder"]["spec"])}
    expected = {
        "lacking": "lacks conv1.0.weight",
        "extra": "has fc8.weight",
        "misshapen": "conv1.0.bias is (5,)",
        "foreign": "not saved by ssl-bench",
        "other": "does not describe an encoder",
        "cut": "not a readable safetensors file",
    }[damage]
    if damage == "lacking":
        del state["conv1.0.weight"]
    elif damage == "extra":
        state["fc8.weight"] = torch.zeros(2, 2)
    elif damage == "misshapen":
        state["conv1.0.bias"] = torch.zeros(5)
    elif damage == "foreign":
        header = {"format": "pt"}
    elif damage == "other":
        header = {"encoder": '{"arch": "alexnet"}'}
    save_file(state, path, header)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-1000])
    result = bench(*PROBE, *SCENES, "--encoder", path, "--workspace", finished)
    fails(result, 1, str(path), expected, ": ")
    assert contents(finished) == before


def test_spec_in_the_header_that_cannot_be_built(
    bench: Bench, finished: Path, tmp_path: Path
) -> None:
    source = only(finished, "pretrain/random-*/encoder.safetensors")
    record = json.loads((source.parent / "record.json").read_text())
    spec = record["details"]["encoder"]["spec"] | {"arch": "alexnot"}
    path = tmp_path / "weights.safetensors"
    save_file(load_file(source), path, {"encoder": json.dumps(spec)})
    result = bench(*PROBE, *SCENES, "--encoder", path, "--workspace", finished)
    fails(result, result.code or 1, "alexnot")


@pytest.mark.parametrize("damage", ["cut", "swapped", "missing"])
def test_damaged_weights_of_a_finished_run(bench: Bench, finished: Path, damage: str) -> None:
    path = only(finished, "pretrain/random-*/encoder.safetensors")
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-1000])
    elif damage == "missing":
        path.unlink()
    else:
        command = ["pretrain", "random", *TOY, *SCENES, "--seed", "1"]
        assert bench(*command, "--workspace", finished / "other").code == 0
        shutil.copy(only(finished / "other", "pretrain/*/encoder.safetensors"), path)
    result = bench(*PROBE, *SCENES, "--encoder", "random", "--workspace", finished)
    fails(result, 1, str(path.parent), "remove")


# ---- workspaces and disks


@contextmanager
def full_disk(room: int) -> Iterator[None]:
    """No file can grow beyond `room` bytes: a real failure of the very call that writes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A regular file: no folder can be made below it, not even by root."""
    path = tmp_path / "file"
    path.touch()
    return path


def test_unwritable_workspace(bench: Bench, finished: Path, file: Path) -> None:
    weights = only(finished, "pretrain/random-*/encoder.safetensors")
    place = ("--workspace", file / "runs")
    fails(bench(*PRETRAIN, *SCENES, *place), 1, str(file / "runs"), "--workspace")
    result = bench(*PROBE, *SCENES, "--encoder", weights, *place)
    fails(result, 1, str(file / "runs"), "--workspace")


def test_workspace_that_is_a_file(bench: Bench, file: Path) -> None:
    fails(bench(*PRETRAIN, *SCENES, "--workspace", file), 1, str(file), "--workspace")


def test_unwritable_cache(
    bench: Bench, workspace: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_BENCH_CACHE", str(file / "cache"))
    result = bench(*PRETRAIN, *SCENES, "--workspace", workspace)
    fails(result, 1, str(file / "cache"), "SSL_BENCH_CACHE")


def test_unwritable_folder_for_tables(bench: Bench, finished: Path, file: Path) -> None:
    assert bench(*PROBE, *SCENES, "--workspace", finished).code == 0
    before = contents(finished)
    result = bench("table", "--workspace", finished, "--out", file / "tables")
    fails(result, 1, str(file / "tables"), "Not a directory")
    assert contents(finished) == before


def test_disk_full_while_decoding(
    bench: Bench, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(finished)
    cache = tmp_path / "cache"
    monkeypatch.setenv("SSL_BENCH_CACHE", str(cache))
    with full_disk(10_000):
        result = bench(*PRETRAIN, *SCENES, "--workspace", finished)
    fails(result, 1, str(cache), os.strerror(errno.EFBIG), "SSL_BENCH_CACHE")
    assert [p for p in cache.iterdir() if p.suffix != ".lock"] == []
    assert contents(finished) == before


def test_disk_full_at_a_checkpoint(bench: Bench, finished: Path) -> None:
    """The checkpoint before it stays whole, and the run goes on from there once there is room."""
    before = contents(finished)
    command = [*PRETRAIN, *SCENES, "--checkpoint-every", "1", "--workspace", finished]
    with interrupted_at(0):
        assert bench(*command).code == 130
    path = only(finished, "pretrain/context-*/checkpoint.pt")
    whole = path.read_bytes()
    with full_disk(len(whole) // 2):
        result = bench(*command)
    fails(result, 1, str(path.parent), os.strerror(errno.EFBIG))
    assert path.read_bytes() == whole
    assert contents(finished) == before
    assert half_written(finished) == []
    assert "continuing at step 1 of 4" in bench(*command).err


def test_disk_full_at_the_weights(bench: Bench, finished: Path) -> None:
    before = contents(finished)
    command = [*PRETRAIN, *SCENES, "--workspace", finished]
    assert bench(*command, "--seed", "1").code == 0  # its images are decoded now
    shutil.rmtree(only(finished, "pretrain/context-*"))
    with full_disk(20_000):
        result = bench(*command)
    folder = only(finished, "pretrain/context-*")
    fails(result, 1, str(folder), "File too large")
    assert not (folder / "record.json").exists()
    assert half_written(finished) == []
    assert contents(finished) == before
    assert bench(*command).code == 0


@pytest.mark.parametrize("command", [(*PRETRAIN, "--checkpoint-every", "2"), PROBE])
def test_disk_full_at_any_flush(
    bench: Bench, finished: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    """Some file systems tell of a full disk only here; the record is flushed last."""
    before = contents(finished)
    fsync, left = os.fsync, 0

    def fill_up(descriptor: int) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fill_up)
    failures = []
    for room in range(10):
        left = room
        result = bench(*command, *SCENES, "--workspace", finished)
        if result.code == 0:
            assert "record.json" in failures[-1]
            return
        failures.append(result.err.splitlines()[-1])
        fails(result, 1, str(finished), "No space left on device")
        assert contents(finished) == before
        assert half_written(finished) == []
    pytest.fail("more files are flushed than expected")


@pytest.mark.parametrize("command", [(*PRETRAIN, "--steps", "8"), PROBE])
def test_disk_full_at_a_small_file(bench: Bench, finished: Path, command: tuple[str, ...]) -> None:
    """The log of a training, the predictions of an evaluation."""
    assert bench(*PROBE, *SCENES, "--workspace", finished).code == 0  # the images are decoded
    shutil.rmtree(only(finished, "evaluation/*"))
    before = contents(finished)
    with full_disk(500):
        result = bench(*command, *SCENES, "--workspace", finished)
    fails(result, 1, str(finished), "File too large")
    assert contents(finished) == before
    assert bench(*command, *SCENES, "--workspace", finished).code == 0


# ---- suites

SUITE = """
name = "toy"
data = "scenes:train=60,test=20"
seeds = [0]
[encoder]
image_size = 64
width = 0.1
[[pretrain]]
method = "random"
[[evaluate]]
evaluation = "linear-probe"
layers = ["pool5"]
strengths = 2
"""


def run_suite(bench: Bench, workspace: Path, text: str | bytes) -> Result:
    path = workspace.parent / "toy.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return bench("run", path, "--workers", "0", "--workspace", workspace)


def test_the_suite_itself_is_sound(bench: Bench, workspace: Path) -> None:
    result = run_suite(bench, workspace, SUITE)
    assert result.code == 0, result
    assert "| random" in result.out


@pytest.mark.parametrize(
    ("old", "new", "parts"),
    [
        ("seeds", "sedes", ("sedes", "did you mean seeds")),
        ("width = 0.1", "widht = 0.1", ("widht", "did you mean width?")),
        ("strengths", "strenghts", ("strenghts", "did you mean strengths?")),
        ('method = "random"', 'method = "random"\nsede = 1', ("sede", "did you mean seed?")),
        ('"random"', '"randm"', ("'randm'", "did you mean random?")),
        ('"linear-probe"', '"linear-prob"', ("'linear-prob'", "did you mean linear-probe?")),
        ('"pool5"', '"pol5"', ("'pol5'", "did you mean pool5?")),
        ('data = "scenes', 'data = "scens', ("'scens'", "did you mean scenes?")),
        ('"linear-probe"', '"linear-probe"\ndata = "scens"', ("'scens'", "did you mean scenes?")),
        ("image_size = 64", 'image_size = "big"', ("image_size", "integer")),
        ("image_size = 64", 'arch = "alexnt"', ("'alexnt'", "did you mean alexnet?")),
        ("[[evaluate]]", "[[evalute]]", ("evalu",)),
        ("seeds = [0]", "seeds = []", ("seeds", "at least 1")),
        ("seeds = [0]", "seeds = [0", ("toy.toml", "line")),
    ],
)
def test_suite_with_a_mistake(
    bench: Bench, workspace: Path, old: str, new: str, parts: tuple[str, ...]
) -> None:
    """Found before the first run: a mistake in the last line must not cost a night."""
    assert old in SUITE
    result = run_suite(bench, workspace, SUITE.replace(old, new, 1))
    fails(result, 2, *parts)
    assert not list(workspace.glob("*/*"))


def test_suite_that_is_not_text(bench: Bench, workspace: Path) -> None:
    fails(run_suite(bench, workspace, b"name = '\xff\xfe'"), 2, "toy.toml", "UTF-8")


def test_missing_suite_file(bench: Bench, workspace: Path) -> None:
    result = bench("run", "nowhere.toml", "--workspace", workspace)
    fails(result, 2, "nowhere.toml", "No such file")


# ---- tracebacks, when asked for


def test_debug_shows_the_traceback(bench: Bench, workspace: Path) -> None:
    """In process the exception itself comes through; the interpreter prints its traceback."""
    words = (*PRETRAIN, "--data", "folder:nowhere", "--workspace", workspace)
    fails(bench(*words), 1, "nowhere")
    with pytest.raises(DataError, match="nowhere"):
        bench("--debug", *words)
