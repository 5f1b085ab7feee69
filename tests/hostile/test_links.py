"""Nothing is written through a link, and an import stays in the workspace."""

from pathlib import Path

import pytest

from helpers.bench import Bench
from helpers.hostile import answered, evaluation, go_on, snapshot
from helpers.photos import draw_photo
from helpers.refusals import only
from ssl_bench.files import write_atomically


# ---- links in the folders that are written to
@pytest.mark.parametrize(
    "name",
    [".lock", "log.jsonl", "preview.png", ".checkpoint.pt.writing", ".record.json.writing",
     ".encoder.safetensors.writing", "."],
)  # fmt: skip
def test_a_training_writes_through_no_link(bench, stopped, outside, name):
    if name == ".":
        stopped.rename(outside / "run")
        stopped.symlink_to(outside / "run")
    else:
        (stopped / name).unlink(missing_ok=True)
        (stopped / name).symlink_to(outside / "precious.txt")
    before = snapshot(outside)
    more = ["--preview"] if name == "preview.png" else ["--checkpoint-every", "1"]
    result = go_on(bench, stopped, *more)
    assert snapshot(outside) == before
    answered(result, stopped)


@pytest.mark.parametrize("name", [".lock", "predictions.npz", ".predictions.npz.writing"])
def test_an_evaluation_writes_through_no_link(bench, work, outside, name):
    folder, before = evaluation(), snapshot(outside)
    for path in list(folder.iterdir()):
        path.unlink()
    (folder / name).symlink_to(outside / "precious.txt")
    result = bench("run", "mini.toml", "--workers", 0, "--workspace", "runs")
    assert snapshot(outside) == before
    answered(result, folder)


def test_what_is_written_at_once_goes_through_no_link(tmp_path: Path, outside: Path) -> None:
    before = snapshot(outside)
    for name in ("table.md", ".table.md.writing"):
        (tmp_path / name).symlink_to(outside / "precious.txt")
    write_atomically(tmp_path / "table.md", "a table")
    assert snapshot(outside) == before
    assert (tmp_path / "table.md").read_text() == "a table"
    assert not (tmp_path / "table.md").is_symlink()


@pytest.mark.parametrize("name", ["evaluation", "pretrain", "table.md"])
def test_an_export_writes_through_no_link(bench, work, outside, name):
    before = snapshot(outside)
    Path("again").mkdir()
    target = outside / ("precious.txt" if "." in name else "folder")
    (Path("again") / name).symlink_to(target)
    words = ("--workspace", "runs", "--workers", 0)
    result = bench("export", "mini.toml", "--out", "again", *words)
    assert snapshot(outside) == before
    answered(result, "again")


@pytest.mark.parametrize("name", ["photo.png", ".photo.png.writing"])
def test_a_filled_image_goes_through_no_link(bench, work, outside, name):
    before = snapshot(outside)
    draw_photo(1).save("photo.png")
    Path("filled").mkdir()
    (Path("filled") / name).symlink_to(outside / "precious.txt")
    result = bench("inpaint", "photo.png", "--out", "filled", "--workspace", "runs")
    assert snapshot(outside) == before
    answered(result, "filled")


# ---- imports
@pytest.mark.parametrize("start", ["n" * 200, "..", "-", "...."])
def test_an_import_stays_in_the_workspace(bench: Bench, work: Path, start: str) -> None:
    """A run's folder keeps its name, whatever that begins with."""
    folder, before = only(work / "mini", "evaluation/knn-*"), snapshot(work.parent)
    folder.rename(folder.with_name(f"{start}{folder.name[-13:]}"))
    answered(bench("import", "mini", "--workspace", "other"), "mini")
    assert snapshot(work.parent) == before
    assert {path.name for path in work.iterdir()} <= {"runs", "mini", "mini.toml", "other"}
    assert {path.name for path in Path("other").iterdir()} <= {"pretrain", "evaluation"}
