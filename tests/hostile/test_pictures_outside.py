"""Pictures from outside a run are not shown, exported or imported."""

import base64
import io
import re
from pathlib import Path

import pytest
from PIL import Image

from helpers.bench import Bench
from helpers.hostile import READERS, RUNS, answered, evaluation, refused
from helpers.photos import draw_photo
from helpers.spoilt import edit
from ssl_bench.files import file_digest

PLACES = {
    "relative": "../../../../outside/secret.png",
    "absolute": "{outside}/secret.png",
    "link": "link.png",
}


@pytest.fixture(params=PLACES)
def lured(request: pytest.FixtureRequest, work: Path, outside: Path) -> Path:
    """A run whose record names a picture that is not its own, in one of three ways."""
    folder, secret = evaluation(), outside / "secret.png"
    name = PLACES[request.param].replace("{outside}", str(outside))
    if request.param == "link":
        (folder / name).symlink_to(secret)
    assert (folder / name).resolve() == secret
    edit(folder, lambda record: record["files"].update({name: file_digest(secret)}))
    return folder


def test_a_page_shows_no_picture_from_outside(bench: Bench, lured: Path) -> None:
    result = bench(*READERS["report"])
    answered(result, lured)
    if result.code == 0:
        assert "data:image" not in Path("page.html").read_text()


def test_a_page_does_show_a_run_s_own_picture(bench: Bench, work: Path) -> None:
    """Else the test above could not fail."""
    draw_photo(1).save(evaluation() / "own.png")
    digest = file_digest(evaluation() / "own.png")
    edit(evaluation(), lambda record: record["files"].update({"own.png": digest}))
    bench.ok(*READERS["report"])
    found = re.findall(r"data:image/webp;base64,([\w+/=]+)", Path("page.html").read_text())
    assert [Image.open(io.BytesIO(base64.b64decode(one))).size for one in found] == [(96, 80)]


def _is_red(path: Path) -> bool:
    """As the secret picture is, of whatever size."""
    with Image.open(path) as image:
        return image.convert("RGB").getpixel((0, 0)) == (255, 0, 0)


def test_an_export_takes_nothing_from_outside(bench: Bench, lured: Path) -> None:
    words = ("--workspace", "runs", "--workers", 0)
    answered(bench("export", "mini.toml", "--out", "again", *words), lured)
    assert [path for path in Path("again").rglob("*.png") if _is_red(path)] == []


def test_an_export_takes_no_figure_from_outside(bench: Bench, work: Path, outside: Path) -> None:
    (RUNS / "figures").mkdir()
    (RUNS / "figures" / "link.png").symlink_to(outside / "secret.png")
    words = ("--workspace", "runs", "--workers", 0)
    answered(bench("export", "mini.toml", "--out", "again", *words), RUNS / "figures" / "link.png")
    assert [path for path in Path("again").rglob("*.png") if _is_red(path)] == []


def test_an_import_takes_nothing_from_outside(bench: Bench, lured: Path) -> None:
    refused(bench(*READERS["import"]), lured, "outside its folder")
    assert not Path("other").exists()
