"""Requests that cannot be met: unknown names, bad values, mistakes in a suite."""

from pathlib import Path

import pytest

from helpers.bench import Bench, Result, overriding
from helpers.refusals import FINETUNE, PRETRAIN, PROBE, SCENES, contents, fails, only
from ssl_bench.errors import DataError

# ---- names
TYPOS = [
    (["pretrian"], "pretrian", "did you mean pretrain"),
    (["linear-prob"], "linear-prob", "did you mean linear-probe"),
    (["pretrain", "context-encodr"], "context-encodr", "did you mean context-encoder"),
    (["pretrain", "zzz"], "zzz", "known: autoencoder, barlow-twins, bigan, byol"),
    ([*PRETRAIN, "--data", "scens"], "scens", "did you mean scenes"),
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
def test_unknown_name(bench, workspace, words, name, remedy):
    place = ["--workspace", workspace] if words[0] in ("pretrain", "run") and words[1:] else []
    fails(bench(*words, *place), 2, name, remedy)
    assert not list(workspace.glob("*/*"))


def test_typo_costs_no_decoding(bench, workspace, tmp_path, monkeypatch):
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
    trained = bench(
        *overriding(PRETRAIN, "--width", "1", "--arch", name), *SCENES, "--workspace", workspace
    )
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
def test_unknown_encoder(bench, finished, reference, parts):
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
    bench.ok("runs", "--workspace", workspace)
    assert not workspace.exists()


# ---- folders to write into
@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("plot training", "curve.png"), ("plot rows", "rows.SVG"), ("figures", "all.pdf"),
        ("table", "table.csv"), ("run toy.toml", "table.md"), ("export toy.toml", "table.tex"),
        ("site .", "index.html"), ("save-pretrained random", "model.safetensors"),
        ("inpaint photo.jpg", "filled.png"),
    ],
)  # fmt: skip
def test_a_files_name_is_no_folder_to_write_into(bench, tmp_path, monkeypatch, command, name):
    """A folder would be made of that name, with the file that was meant within."""
    monkeypatch.chdir(tmp_path)
    fails(bench(*command.split(), "--out", name), 2, f"'{name}' is a file's name: give a folder")
    assert not list(tmp_path.iterdir())


# ---- settings that do not go together
TOGETHER = {
    "mae --recipe small --steps 2": "--warmup 740 is not below --steps 2",
    "moco-v2 --queue 2 --batch-size 3": "--queue 2 does not hold a batch of 3",
    "swav --queue 2 --batch-size 3": "--queue 2 does not hold a batch of 3",
    "ibot --masked 0.1": "--masked less or plus --masked-spread is not between 0 and 1",
    "jigsaw --jitter 99": "--jitter 99 and --gap 0 leave no tile in a cell of 85 px",
    "jigsaw --tile 5": "--tile 5: alexnet takes images of at least 64 px",
    "rotation --recipe small": "unknown recipe 'small'; known: none",
}


@pytest.mark.parametrize("words", TOGETHER)
def test_settings_that_do_not_go_together_are_said_alone(bench: Bench, words: str) -> None:
    """A sentence with their names, and none of all the others that were given."""
    result = bench("pretrain", *words.split())
    assert result.code == 2
    assert result.err == f"bench: {TOGETHER[words]}\n"


def test_a_librarys_network_without_its_library(bench: Bench) -> None:
    said = "did you mean timm:resnet18 or torchvision:resnet18?"
    fails(bench("pretrain", "random", "--arch", "resnet18"), 2, "'resnet18'", said)


# ---- values of options
VALUES = [
    ("--steps", "0"), ("--steps", "many"), ("--lr", "nan"), ("--lr", "inf"), ("--image-size", "20"),
    ("--image-size", "40"), ("--width", "5"), ("--seed", str(2**70)), ("--mask", "foo"),
    ("--precision", "foo"), ("--schedule", "foo"), ("--devices", "x"), ("--devices", "0"),
    ("--workers", "-1"), ("--checkpoint-every", "0"), ("--checkpoint-every", "5m"),
]  # fmt: skip


@pytest.mark.parametrize(("option", "value"), VALUES)
def test_bad_value_for_pretrain(bench: Bench, workspace: Path, option: str, value: str) -> None:
    result = bench(*overriding(PRETRAIN, option, value), *SCENES, "--workspace", workspace)
    if (option, value) == ("--image-size", "40"):
        fails(result, 2, "alexnet", "at least 64 px", "40")
    else:
        fails(result, 2, option)
    assert not list(workspace.glob("*/*"))


@pytest.mark.parametrize(
    ("command", "option", "value"),
    [
        (PROBE, "--strengths", "1"), (PROBE, "--held-out", "1.5"), (PROBE, "--held-out", "nan"),
        (PROBE, "--seed", str(2**40)), (FINETUNE, "--labels", "-1"),
        (FINETUNE, "--lr", "inf"),
    ],
)  # fmt: skip
def test_bad_value_for_evaluation(bench, finished, command, option, value):
    before = contents(finished)
    few = ("--labels", "2") if command == FINETUNE else ()
    result = bench(*overriding((*command, *few), option, value), *SCENES, "--workspace", finished)
    fails(result, 2, option)
    assert contents(finished) == before


@pytest.mark.parametrize(("option", "value"), [("--image-size", "20"), ("--width", "9")])
@pytest.mark.parametrize("name", ["context-encoder", "alexnet"])
def test_bad_value_for_inspect(bench: Bench, name: str, option: str, value: str) -> None:
    fails(bench("inspect", name, option, value), 2, value)


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
        ('method = "random"', 'method = "random"\nsede = 1', ("sede", "did you mean seed")),
        ('"random"', '"randm"', ("'randm'", "did you mean random?")),
        ('"linear-probe"', '"linear-prob"', ("'linear-prob'", "did you mean linear-probe")),
        ('"pool5"', '"pol5"', ("'pol5'", "did you mean pool5?")),
        ('data = "scenes', 'data = "scens', ("'scens'", "did you mean scenes")),
        ('"linear-probe"', '"linear-probe"\ndata = "scens"', ("'scens'", "did you mean scenes")),
        ("image_size = 64", 'image_size = "big"', ("image_size", "integer")),
        ("image_size = 64", 'arch = "alexnt"', ("'alexnt'", "did you mean alexnet?")),
        ("[[evaluate]]", "[[evalute]]", ("evalu",)),
        ("seeds = [0]", "seeds = []", ("seeds", "at least 1")),
        ("seeds = [0]", "seeds = [0", ("toy.toml", "line")),
    ],
)
def test_suite_with_a_mistake(bench, workspace, old, new, parts):
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
