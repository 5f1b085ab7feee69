"""`bench save-pretrained`: what timm reads of the folder, what the card says, what is uploaded."""

import json
import re
from pathlib import Path
from typing import Any, ClassVar

import huggingface_hub
import pytest
import timm
import torch
from timm.data.config import resolve_model_data_config
from timm.data.transforms_factory import create_transform

import ssl_bench
from helpers.bench import Bench, Result, call
from helpers.photos import draw_photo
from helpers.refusals import fails
from ssl_bench.encoders.encoder import POOLED
from ssl_bench.evaluation.reference import Reference

DATA = ("--data", "scenes:train=20,test=10", "--workers", 0)
ARCHS = {
    "torchvision": ("torchvision:resnet18", 64),
    "timm": ("timm:test_vit", 96),  # built for one size, which is not its own
    "alexnet": ("alexnet", 64),
    "small stem": ("timm:test_resnet", 64),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """A workspace with a run of each kind, the first one measured."""
    space = tmp_path_factory.mktemp("take") / "runs"
    for name, (arch, size) in ARCHS.items():
        own: tuple[object, ...] = ("--width", 0.1) if arch == "alexnet" else ()
        own += ("--stem", "small") if name == "small stem" else ()
        call("pretrain", "random", "--arch", arch, "--image-size", size, *own, *DATA,
             "--workspace", space)  # fmt: skip
    call("knn", "--encoder", run_of(space, "torchvision"), "--k", 3, *DATA, "--workspace", space)
    return space


def run_of(space: Path, name: str) -> str:
    """METHOD@KEY of the run of one of the ARCHS."""
    for path in (space / "pretrain").glob("*/record.json"):
        record = json.loads(path.read_text())
        if record["identity"]["config"]["arch"] == ARCHS[name][0]:
            return f"random@{record['key'][:12]}"
    raise AssertionError(name)


def saved(space: Path, name: str, out: Path, bench: Bench, *more: object) -> Result:
    words = ("save-pretrained", run_of(space, name), "--out", out, "--workspace", space)
    return bench.ok(*words, *more)


@pytest.fixture(scope="module")
def folder(runs) -> Path:
    """torchvision's ResNet, saved for timm."""
    out = runs.parent / "resnet"
    call("save-pretrained", run_of(runs, "torchvision"), "--out", out, "--workspace", runs,
         "--license", "cc-by-4.0")  # fmt: skip
    return out


def assert_timm_gives(folder: Path, name: str, runs: Path) -> None:
    """The features, and what they see: the transform that timm makes of the config is ours."""
    model: Any = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    encoder = ssl_bench.load_encoder(run_of(runs, name), runs)
    config = resolve_model_data_config(model)
    transform: Any = create_transform(**config, is_training=False)
    photo = draw_photo(5).resize((200, 200))
    seen, expected = transform(photo), encoder.transform(photo)
    assert torch.allclose(seen, expected, atol=1e-5)
    with torch.no_grad():
        found = model(seen[None])
    own = encoder.encode(expected[None], [POOLED])[POOLED].flatten(1)
    assert own.abs().max() > 0.01
    assert torch.allclose(found, own, rtol=0, atol=1e-5 * float(own.abs().max()))


def test_timm_gives_the_features_of_torchvisions_network(runs, folder):
    assert_timm_gives(folder, "torchvision", runs)


def test_timm_gives_those_of_a_network_built_for_one_size(runs, tmp_path, bench):
    done = saved(runs, "timm", tmp_path / "out", bench)
    assert f'timm.create_model("local-dir:{tmp_path / "out"}", pretrained=True)' in done.out
    assert_timm_gives(tmp_path / "out", "timm", runs)
    assert "## Measured\n\nNothing yet." in (tmp_path / "out" / "README.md").read_text()


def test_the_card_has_the_licence_the_table_and_the_settings(runs, folder, bench):
    card = (folder / "README.md").read_text()
    front = card.split("---\n")[1].splitlines()
    assert {"license: cc-by-4.0", "library_name: timm", "- self-supervised-learning"} <= {*front}
    table = bench.ok("table", "--workspace", runs).out
    row = next(line for line in table.splitlines() if line.startswith("| random"))
    assert row.split("|")[2] in card.split("## Measured")[1]  # the number with its interval
    digest = Reference(run_of(runs, "torchvision"), runs).digest
    for row in ("image size | 64 px", "seed | 0", f"SHA-256 of the weights | {digest}"):
        assert f"| {row} |" in card
    config = json.loads((folder / "config.json").read_text())
    assert config["architecture"] == "resnet18"
    assert config["pretrained_cfg"]["license"] == "cc-by-4.0"


def test_the_cards_lines_for_timm_run_as_they_stand(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert card_run()["features"].shape == (1, 512)


def card_run() -> dict[str, Any]:
    """What the card's lines leave, run in its folder beside a photograph."""
    (code,) = re.findall(r"```python\n(.*?)```", Path("README.md").read_text(), re.S)
    assert len(code.splitlines()) <= 10
    draw_photo(0).save("photo.jpg")
    names: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), names)
    Path("photo.jpg").unlink()
    return names


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("alexnet", "timm has no network alexnet"),
        ("small stem", "no test_resnet with a small stem"),
    ],
)
def test_where_timm_has_no_such_network_the_card_loads_it(
    name, why, runs, tmp_path, bench, monkeypatch
):
    done = saved(runs, name, tmp_path / "out", bench)
    assert why in done.out
    monkeypatch.chdir(tmp_path / "out")
    assert why in Path("README.md").read_text()
    names = card_run()
    own = ssl_bench.load_encoder(run_of(runs, name), runs)
    expected = own.encode(names["image"][None])[own.layers[-1]].flatten(1)
    assert torch.equal(names["features"], expected)


# ---- the hub
class FakeApi:
    """Stands for huggingface_hub.HfApi, and notes what it is asked for."""

    asked: ClassVar[list[Any]] = []

    def __init__(self, **_: Any) -> None: ...

    def create_repo(self, repo_id: str, *, exist_ok: bool) -> str:
        self.asked.append(("create", repo_id, exist_ok))
        return f"https://huggingface.co/{repo_id}"

    def upload_folder(self, *, repo_id: str, folder_path: Path, commit_message: str) -> None:
        names = sorted(path.name for path in Path(folder_path).iterdir())
        self.asked.append(("upload", repo_id, names))


def test_push_uploads_the_folder(runs, tmp_path, bench, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "HfApi", FakeApi)
    FakeApi.asked.clear()
    done = saved(runs, "alexnet", tmp_path / "out", bench, "--push", "hf:someone/alexnet-random")
    assert done.out.endswith("https://huggingface.co/someone/alexnet-random\n")
    files = ["README.md", "config.json", "model.safetensors"]
    assert FakeApi.asked == [("create", "someone/alexnet-random", True),
                             ("upload", "someone/alexnet-random", files)]  # fmt: skip


@pytest.mark.parametrize("target", ["someone/name", "hf:name", "hf:a/b/c", "hf:/b", "hf:a/b?"])
def test_a_strange_target_is_refused_before_anything_is_written(target, runs, tmp_path, bench):
    words = ("save-pretrained", run_of(runs, "alexnet"), "--workspace", runs, "--push", target)
    fails(bench(*words, "--out", tmp_path / "out"), 2, "takes hf:USER/NAME")
    assert not (tmp_path / "out").exists()


def test_a_folder_with_something_else_is_left_alone(runs, tmp_path, bench):
    (tmp_path / "thesis.tex").write_text("precious")
    words = ("save-pretrained", run_of(runs, "alexnet"), "--workspace", runs, "--out", tmp_path)
    fails(bench(*words), 1, "holds thesis.tex")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
