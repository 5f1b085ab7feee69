"""The committed tables are what their records say, and the records what their predictions say."""

import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from helpers.places import RESULTS
from ssl_bench import catalogue
from ssl_bench.evaluation.metrics.precision import top1
from ssl_bench.files import file_digest
from ssl_bench.records.workspace import read_records
from ssl_bench.tables.forms import csv_lines, latex, markdown
from ssl_bench.tables.table import Table
from ssl_bench.trust.sharing import WIDEST

FOLDER = re.compile(r"(?<![\w.…])/(tmp|home|root|work|Users|mnt|media)/")
SUITES = sorted(path.parent for path in RESULTS.glob("*/table.md"))


# `bench verify results` prints the tables of all suites again; of these two it takes seconds.
@pytest.mark.parametrize("name", ["quickstart", "inpainting-mini"])
def test_the_table_comes_from_the_records(name):
    folder = RESULTS / name
    table = Table.of(read_records(folder, "evaluation"), folder)
    assert (folder / "table.md").read_text() == markdown(table) + "\n"
    assert (folder / "table.csv").read_text() == csv_lines(table) + "\n"
    assert (folder / "table.tex").read_text() == latex(table) + "\n"


def score(predictions):
    """Top-1 from its definition, or the means of values, one an image."""
    if "predicted" in predictions:
        return {"top1": top1(predictions["label"], predictions["predicted"])}
    if "psnr" in predictions:
        return {name: float(np.mean(values)) for name, values in predictions.items()}
    return {}  # a curve's metric: `bench verify` computes it


@pytest.mark.parametrize("folder", SUITES, ids=lambda folder: folder.name)
def test_the_records_come_from_the_predictions(folder):
    records = read_records(folder, "evaluation")
    assert records
    for record in records:
        (path,) = folder.glob(f"evaluation/*-{record.key[:12]}/predictions.npz")
        assert file_digest(path) == record.files["predictions.npz"]
        with np.load(path) as rows:
            found = score(rows)
        assert found == pytest.approx({name: record.metrics[name] for name in found}, rel=1e-6)


@pytest.mark.parametrize("folder", SUITES, ids=lambda folder: folder.name)
def test_nothing_names_a_folder_of_the_machine_it_was_made_on(folder):
    for path in folder.rglob("*"):
        if path.suffix in (".json", ".md", ".csv", ".tex"):
            found = re.search(
                r"(?<![\w.…])/(tmp|home|root|work|Users|mnt|media)/", path.read_text()
            )
            assert not found, f"{path}: {found}"


@pytest.mark.parametrize("folder", SUITES, ids=lambda folder: folder.name)
def test_pictures_are_thumbnails(folder):
    for path in folder.rglob("*.png"):
        with Image.open(path) as picture:
            assert picture.width <= WIDEST, path


def test_the_readme_shows_the_committed_table():
    readme = (RESULTS.parent / "README.md").read_text()
    shown = readme.split("<!-- quickstart table -->\n")[1].split("<!-- end -->")[0]
    assert shown.strip() == (RESULTS / "quickstart" / "table.md").read_text().strip()


MEANS = {"knn/lightly@1 pooled": "methods-small", "linear/logreg@1 conv3": "methods-alexnet"}
ROWS = {  # which go by another name than their pretext's
    "random": ["random ResNet-18", "random BN"],
    "kmeans-init": ["k-means, no batch normalisation"],
}


def committed_mean(method: str, column: str) -> str:
    """A method's mean in a committed table, as the page of all methods prints it."""
    table = pd.read_csv(RESULTS / MEANS[column] / "table.csv")
    names = ROWS.get(method, [method])
    found = [
        value
        for row, place, value in zip(table.method, table.evaluation, table["mean"], strict=True)
        if place == column and value == value and {row, row.split(" small@")[0]} & {*names}
    ]
    return f"{found[0]:.1f}" if found else "–"


def test_the_page_of_methods_has_each_and_the_committed_means():
    page = (RESULTS.parent / "docs" / "methods.md").read_text()
    shown = page.split("<!-- methods -->")[1].split("<!-- end -->")[0]
    rows = re.findall(r"^\| \[([\w-]+)\]\(.*\|([^|]*)\|([^|]*)\|$", shown, re.MULTILINE)
    ours = [
        n for n in catalogue.names("pretext") if catalogue.pretext(n).__module__[:8] == "pretext."
    ]
    assert sorted(name for name, *_ in rows) == sorted(ours)
    for name, *means in rows:
        assert [mean.strip().removesuffix(r"\*") for mean in means] == [
            committed_mean(name, c) for c in MEANS
        ], name
