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


RUN = ("run", "mini.toml", "--workers", 0)
EXPORT = ("export", "mini.toml", "--out", "again", "--workers", 0)
FILL = ("inpaint", "photo.png", "--out", "filled")
LINKS = [  # the run is an evaluation's folder, emptied
    (RUN, "{run}/.lock"), (RUN, "{run}/predictions.npz"), (RUN, "{run}/.predictions.npz.writing"),
    (EXPORT, "again/evaluation"), (EXPORT, "again/pretrain"), (EXPORT, "again/table.md"),
    (FILL, "filled/photo.png"), (FILL, "filled/.photo.png.writing"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "link"), LINKS)
def test_a_command_writes_through_no_link(bench, work, outside, words, link):
    folder, before = evaluation(), snapshot(outside)
    draw_photo(1).save("photo.png")
    if words == RUN:
        for path in list(folder.iterdir()):
            path.unlink()
    path = Path(link.format(run=folder))
    path.parent.mkdir(exist_ok=True)
    path.symlink_to(outside / ("precious.txt" if "." in path.name else "folder"))
    result = bench(*words, "--workspace", "runs")
    assert snapshot(outside) == before
    answered(result, path.parent)


def test_what_is_written_at_once_goes_through_no_link(tmp_path: Path, outside: Path) -> None:
    before = snapshot(outside)
    for name in ("table.md", ".table.md.writing"):
        (tmp_path / name).symlink_to(outside / "precious.txt")
    write_atomically(tmp_path / "table.md", "a table")
    assert snapshot(outside) == before
    assert (tmp_path / "table.md").read_text() == "a table"
    assert not (tmp_path / "table.md").is_symlink()


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
