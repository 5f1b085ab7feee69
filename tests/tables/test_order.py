"""The published order beside the measured one: which methods, Spearman's rho, its exact p."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from helpers.places import RESULTS
from helpers.predictions import answers, changed, stored
from ssl_bench.records.record import Kept
from ssl_bench.records.workspace import read_records
from ssl_bench.tables.order import alike, published_orders
from ssl_bench.tables.table import Table

# Zhang et al., table 2, conv5: 14.1, 15.5, 29.6, 28.3, 32.8.
MEASURED = {
    "random": 20.0, "context-encoder": 21.0, "relative-position": 24.0, "jigsaw": 30.0,
    "split-brain": 22.0,
}  # fmt: skip


@pytest.fixture(scope="module")
def template() -> Any:
    return read_records(RESULTS / "quickstart", "evaluation")[0]


def record(
    template: Any, method: str, value: float, *, protocol: str = "linear/logreg@1",
    layer: str = "conv5", metric: str = "top1", kept: bool = False, **settings: Any,
) -> Any:  # fmt: skip
    details = {
        "column": None, "encoder": method, "depth": None, "metric": metric, "shown": [metric],
        "pretraining": settings,
        "kept": Kept(run="a" * 64, step=5) if kept else None, "pretraining_data": "scenes",
    }  # fmt: skip
    return changed(
        template, protocol=protocol, layer=layer, details=details, method=method,
        metrics={metric: value},
    )  # fmt: skip


def table(template: Any, *more: Any, measured: Any = MEASURED, **own: Any) -> Table:
    return Table.of([*(record(template, m, value, **own) for m, value in measured.items()), *more])


def spearman(a: Any, b: Any) -> float:
    return float(np.array(stats.spearmanr(a, b))[0])


def rows(made: Table) -> list[str]:
    (order,) = published_orders(made)
    return [row for row, *_ in order.lines]


def test_a_case_with_ties_worked_by_hand():
    """Ranks 1, 2.5, 2.5, 4 and 1 to 4: 4.5 / √(4.5 · 5); 2 of 24 orders keep both ends."""
    rho, p = alike([1, 2, 2, 9], [10, 20, 30, 40])
    assert rho == pytest.approx(4.5 / np.sqrt(22.5))
    assert p == pytest.approx(2 / 24)
    rho, p = alike([1, 2, 2, 9], [40, 30, 20, 10])
    assert rho == pytest.approx(-4.5 / np.sqrt(22.5))
    assert p == 1


@pytest.mark.parametrize("seed", range(4))
def test_rho_and_p_are_scipys(seed: int):
    """Of six values, of which some are equal; p by scipy's test over all 720 pairings."""
    a, b = np.random.default_rng(seed).integers(0, 5, (2, 6)).astype(float)
    rho, p = alike(list(a), list(b))
    assert rho == pytest.approx(spearman(a, b))
    test = stats.permutation_test(
        (a,), lambda x: spearman(x, b), permutation_type="pairings",
        alternative="greater", n_resamples=1000,
    )  # fmt: skip
    assert p == pytest.approx(test.pvalue)


def test_more_than_nine_have_rho_alone():
    assert alike(range(9), range(9)) == (pytest.approx(1), pytest.approx(1 / 362_880))
    assert alike(range(10), range(10)) == (pytest.approx(1), None)


def test_both_values_in_the_measured_order_with_all_that_differs(template):
    made = table(template, measured=MEASURED | {"random": 20.04}, steps=600, width=0.5)
    (order,) = published_orders(made)
    assert order.lines == [
        ("jigsaw", "30.0", "28.3"), ("relative-position", "24.0", "29.6"),
        ("split-brain", "22.0", "32.8"), ("context-encoder", "21.0", "15.5"),
        ("random", "20.0", "14.1"),
    ]  # fmt: skip
    # Published, they stand 3 2 1 4 5: 1 − 6 · (4 + 4) / (5 · 24). Of n = 5 the field's tables have
    # 0.175 for a sum of 8.
    assert order.rho == pytest.approx(0.6)
    assert order.p == pytest.approx(0.175)
    assert order.text == (
        "Spearman's rho +0.60, n = 5, one-sided p 0.17 (exact). Published: Zhang et al., arXiv "
        "1611.09842, table 2 (AlexNet with stride 2 in conv1); Zhang et al., arXiv 1611.09842, "
        "table 2. Here: linear/logreg, not linear/zhang16; scenes (2,000 test images), not "
        "imagenet (50,000); 80 px, not 227; width 0.5, not 1; pretrained on scenes, not imagenet; "
        "600 pretraining steps."
    )


def test_what_is_no_row_of_the_paper_is_left_out(template):
    """Not published, kept on the way, another network, several rows of which none is plain."""
    others = [
        record(template, "rotation", 50.0),
        record(template, "colorization", 50.0, kept=True, steps=9),
        record(template, "kmeans-init", 50.0, arch="torchvision:resnet18"),
        record(template, "autoencoder", 50.0, lr=0.1),
        record(template, "autoencoder", 51.0, lr=0.2),
    ]
    assert set(rows(table(template, *others))) == set(MEASURED)
    assert "autoencoder" in rows(table(template, others[3]))  # its only row


def test_of_several_rows_the_plain_one_is_taken(template):
    found = rows(table(template, record(template, "jigsaw", 19.0, norm="batch")))
    assert set(found) == set(MEASURED)
    assert found[0] == "jigsaw"


def test_three_methods_or_equal_numbers_have_no_order(template):
    """A fourth that is not published, or that stands twice, makes no four."""
    three = dict(list(MEASURED.items())[:3])
    again = record(template, "random", 50.0, arch="dcgan")
    assert published_orders(table(template, measured={**three, "rotation": 1.0})) == []
    assert published_orders(table(template, again, measured=three)) == []
    assert published_orders(table(template, measured=dict.fromkeys(MEASURED, 5.0))) == []


@pytest.mark.parametrize(
    ("protocol", "layer", "metric", "shown"),
    [
        ("linear/zhang16@1", "conv5", "top1", True),
        ("svm/goyal19-voc07@1", "conv5", "map11", True),  # a linear classifier, too
        ("knn/lightly@1", "conv5", "top1", False),
        ("linear/logreg@1", "pool5", "top1", False),
    ],
)
def test_kind_and_layer_are_the_published_ones(template, protocol, layer, metric, shown):
    made = table(template, protocol=protocol, layer=layer, metric=metric)
    assert len(published_orders(made)) == shown


@pytest.mark.parametrize(
    ("protocol", "layer", "metric", "random"),
    [
        ("finetune/linear-head@1", "pool5", "top1", "53.3"),  # of average precision
        ("detection/fast-rcnn@1", "conv5", "map11", "43.4"),
        ("segmentation/fcn32s@1", "conv5", "mean_iu", "19.8"),
    ],
)
def test_tasks_have_the_numbers_of_both_papers(template, protocol, layer, metric, random):
    measured = {"random": 1.0, "autoencoder": 2.0, "kmeans-init": 3.0, "split-brain": 4.0}
    made = table(template, measured=measured, protocol=protocol, layer=layer, metric=metric)
    (order,) = published_orders(made)
    assert order.lines[-1] == ("random", "1.0", random)
    assert "Pathak" in order.of
    assert "Zhang" in order.of


def test_the_table_and_the_page_show_it(bench, workspace: Path, tmp_path: Path):
    hits = {"random": 40, "autoencoder": 50, "context-encoder": 55, "split-brain": 60, "npid": 70}
    for method, right in hits.items():
        stored(workspace, method, answers(right, 100 - right), protocol="finetune/linear-head@1")
    plain = bench.ok("table", "--workspace", workspace).out
    found = bench.ok("table", "--workspace", workspace, "--published-order", "--out", tmp_path)
    assert (tmp_path / "table.md").read_text() == plain
    behind = found.out.removeprefix(plain)
    names = [line.split("|")[1].strip() for line in behind.splitlines() if line.startswith("|")]
    assert names[2:] == ["split-brain", "context-encoder", "autoencoder", "random"]
    verdict = "rho +1.00, n = 4, one-sided p 0.042 (exact)"
    assert verdict in behind
    page = tmp_path / "report.html"
    bench.ok("report", "--workspace", workspace, "--out", page)
    text = page.read_text(encoding="utf-8")
    assert "<caption>Published order: finetune/linear-head@1 pool5</caption>" in text
    assert verdict in text


def test_the_table_says_that_there_is_none(bench):
    words = ("table", "--workspace", RESULTS / "methods-small", "--published-order")
    assert bench.ok(*words).out.endswith("No column has 4 methods whose numbers are published.\n")
    refused = bench(*words, "--format", "csv")
    assert refused.code == 2
    assert "--published-order is printed behind a Markdown table" in refused.err
