"""`bench compare`, on the same images: what it prints is what scipy says of the predictions."""

import gc
import re
from itertools import accumulate
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from helpers.bench import DATA, TOY, call
from helpers.places import RESULTS
from helpers.predictions import LESS, MORE, answers, stored
from helpers.refusals import fails, only
from ssl_bench.evaluation.two_way import half_width, p_value, variance_of_values
from ssl_bench.records.workspace import folder_of, read_records
from ssl_bench.tables.table import Table

# ---- bench compare


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> Path:
    """Two encoders and their numbers, some with two seeds of the probe."""
    folder = tmp_path_factory.mktemp("toy") / "runs"
    place = ("--workspace", folder)
    start = ("--init", "fan-in", *TOY, *place)
    call("pretrain", "random", *start)
    call("pretrain", "context-encoder", "--steps", 3, "--batch-size", 8, "--lr", 0.01, *start)
    measure = ("--data", DATA, "--workers", 0, *place)
    call("knn", "--k", 5, "--layer", "conv3", *measure)
    call("linear-probe", "--strengths", 2, "--layer", "conv1", *measure)
    for seed in (0, 1, 2):
        few = ("--layer", "conv2", "--labels", 4, "--steps", 4, "--batch-size", 20, "--lr", 0.003)
        call("finetune", "--protocol", "linear-head", *few, "--seed", seed, *measure)
    call("inpainting", "--encoder", "context-encoder", *measure)
    return folder


LINE = re.compile(
    r"(?P<place>\S+@\d.*?) +(?P<a>-?[\d.]+) +(?P<b>-?[\d.]+) +(?P<gap>[+-][\d.]+) ± "
    r"(?P<half>[\d.]+) +(?P<p>\S+) +(?P<holm>\S+) +(?P<metric>\w+), (?P<test>.*)"
)


def compared(bench, folder, *words):
    """What `bench compare` prints, by place."""
    result = bench("compare", *words, "--workspace", folder)
    assert result.code == 0, result.err
    notes = ("–: exploratory", "one has more seeds")
    lines = [line for line in result.out.splitlines()[3:] if not line.startswith(notes)]
    found = [LINE.fullmatch(line) for line in lines]
    assert all(found), result.out
    return {line["place"]: line.groupdict() for line in found if line}


def arrays(folder, protocol, method):
    """Stored predictions of a method's records of a protocol, by seed."""
    found = {}
    for record in read_records(folder, "evaluation"):
        if record.identity.protocol == protocol and record.method == method:
            with np.load(folder_of(folder, record) / "predictions.npz") as rows:
                found[record.identity.config["seed"]] = dict(rows)
    return [found[seed] for seed in sorted(found)]


def holm_of(p_values):
    """Holm's p-values, sorted."""
    steps = [p * (len(p_values) - i) for i, p in enumerate(sorted(p_values))]
    return [min(1, p) for p in accumulate(steps, max)]


def test_compare_prints_what_the_predictions_say(bench, toy):
    lines = compared(bench, toy, "context-encoder", "random")
    places = {
        "knn/dinov2@1": "knn/dinov2@1 k=5 conv3",
        "linear/logreg@1": "linear/logreg@1 strengths=2 conv1",
    }
    for protocol, place in places.items():
        mine, other = (
            rows["label"] == rows["predicted"]
            for method in ("context-encoder", "random")
            for rows in arrays(toy, protocol, method)
        )
        line = lines[place]
        assert (float(line["a"]), float(line["b"])) == (100 * mine.mean(), 100 * other.mean())
        won, lost = (mine & ~other).sum(), (other & ~mine).sum()
        p = stats.binomtest(won, won + lost).pvalue if won + lost else 1
        assert float(line["gap"]) == 5 * (won - lost)
        spread = (100.0 * mine - 100.0 * other).std() / 20**0.5
        assert float(line["half"]) == pytest.approx(1.959964 * spread, abs=0.006)
        assert float(line["p"]) == pytest.approx(p, rel=0.05)  # two digits
        assert line["test"] == "McNemar of these weights: one seed, images"


def test_compare_pairs_seeds_and_images_where_there_are_several(bench, toy):
    """Three seeds of a probe on the same weights: two-way, and still of these weights."""
    protocol = "finetune/linear-head@1"
    lines = compared(bench, toy, "context-encoder", "random", "--protocol", protocol)
    (line,) = lines.values()
    hits = [
        np.array(
            [100.0 * (rows["label"] == rows["predicted"]) for rows in arrays(toy, protocol, m)]
        )
        for m in ("context-encoder", "random")
    ]
    values = hits[0] - hits[1]
    assert values.shape == (3, 20)
    assert np.ptp(values.mean(1)) > 1  # percent; else the test below would not be one
    variance = variance_of_values(values)
    assert float(line["gap"]) == pytest.approx(values.mean(), abs=0.006)
    assert float(line["half"]) == pytest.approx(float(half_width(variance)), abs=0.006)
    assert float(line["p"]) == pytest.approx(float(p_value(values.mean(), variance)), rel=0.05)
    assert line["test"] == "two-way t of these weights: 3 seeds and images"


def test_what_is_not_in_the_family_is_exploratory(bench, toy):
    lines = compared(bench, toy, "Telea", "mean colour")
    mine, other = (arrays(toy, "inpainting/pathak16@1", m)[0] for m in ("Telea", "mean colour"))
    assert {line["metric"] for line in lines.values()} == {"l1", "l2", "psnr", "ssim"}
    for line in lines.values():
        pair = (rows[line["metric"]].astype(float) for rows in (mine, other))
        assert float(line["p"]) == pytest.approx(stats.ttest_rel(*pair).pvalue, rel=0.05)
        assert line["holm"] == "–"
    said = bench("compare", "Telea", "mean colour", "--workspace", toy).out.splitlines()[-1]
    assert said.startswith("–: exploratory")


def test_a_network_is_compared_with_a_row_without_an_encoder(bench, toy):
    """Not its nearest neighbours, which the same encoder finds, but its own fills."""
    lines = compared(bench, toy, "context-encoder", "Telea")
    mine, other = (arrays(toy, "inpainting/pathak16@1", m)[0] for m in ("context-encoder", "Telea"))
    (line,) = (line for line in lines.values() if line["metric"] == "psnr")
    gap = mine["psnr"].astype(float) - other["psnr"].astype(float)
    assert float(line["gap"]) == pytest.approx(gap.mean(), abs=0.006)


def test_nearest_neighbours_are_compared_by_their_rows_name(bench, toy):
    lines = compared(bench, toy, "nearest (pool5 of context-encoder)", "nearest (HOG)")
    assert len(lines) == 4


def test_a_run_is_named_by_its_key(bench, toy):
    keys = {r.method: r.key for r in read_records(toy, "pretrain")}
    named = [f"{method}@{keys[method][:8]}" for method in ("random", "context-encoder")]
    by_key = compared(bench, toy, *named)
    all_runs = compared(bench, toy, "random", "context-encoder")
    assert {line["holm"] for line in by_key.values()} == {"–"}  # no row of the table
    assert by_key == {place: {**line, "holm": "–"} for place, line in all_runs.items()}
    assert len(by_key) == 3


def test_the_other_way_round_the_sign_turns(bench, toy):
    there = compared(bench, toy, "context-encoder", "random")
    back = compared(bench, toy, "random", "context-encoder")
    assert there.keys() == back.keys()
    for place, line in there.items():
        assert float(line["gap"]) == -float(back[place]["gap"])
        kept = ("half", "p", "holm", "test")
        assert [line[k] for k in kept] == [back[place][k] for k in kept]


@pytest.mark.parametrize("protocol", ["knn/dinov2", "knn/dinov2@1"])
def test_one_protocol_alone_is_corrected_for_the_same_family(bench, toy, protocol):
    lines = compared(bench, toy, "context-encoder", "random", "--protocol", protocol)
    ((place, line),) = lines.items()
    assert place.startswith("knn/dinov2@1 ")
    assert line == compared(bench, toy, "context-encoder", "random")[place]


def test_a_run_beside_a_method_of_several_seeds_meets_the_run_of_its_seed(bench):
    """Seed 1 of the committed ones, over images: McNemar's."""
    folder = RESULTS / "quickstart"
    runs = read_records(folder, "pretrain")
    (key,) = (r.key for r in runs if r.method == "autoencoder" and r.identity.config["seed"] == 1)
    top1 = ("--protocol", "linear/logreg@1", "--protocol", "finetune/linear-head@1")
    found = compared(bench, folder, f"autoencoder@{key[:12]}", "random", *top1)
    assert {line["test"] for line in found.values()} == {
        "McNemar of these weights: one seed, images"
    }
    hits = [
        rows["label"] == rows["predicted"]
        for m in ("autoencoder", "random")
        for rows in arrays(folder, "finetune/linear-head@1", m)[1:2]
    ]
    (gap,) = (line["gap"] for place, line in found.items() if place.startswith("finetune"))
    assert float(gap) == pytest.approx(100 * (hits[0].mean() - hits[1].mean()), abs=0.006)


@pytest.fixture(scope="module")
def quickstart() -> Table:
    folder = RESULTS / "quickstart"
    return Table.of(read_records(folder, "evaluation"), folder)


def lines_of_all(bench, table):
    """What `compare` says of every difference of a table, and the table's own cells."""
    for name, cells in table.differences:
        a, b = name.split(" − ")
        lines = compared(bench, RESULTS / "quickstart", a, b).values()
        yield from zip(lines, filter(None, cells), strict=True)


def test_compare_agrees_with_the_table_of_the_same_records(bench, quickstart):
    """Several seeds stand in the table: their mean difference, its interval, and both p-values."""
    seeds = max(cell.n for cell in quickstart.cells.values())
    tests = {f"two-way {how} of the method: {seeds} seeds and images" for how in ("t", "bootstrap")}
    found = list(lines_of_all(bench, quickstart))
    assert len(found) == len(quickstart.differences) * len(quickstart.columns)
    for line, cell in found:
        assert line["test"] in tests
        assert float(line["gap"]) == pytest.approx(cell.mean, abs=0.006)
        assert float(line["half"]) == pytest.approx(cell.half, abs=0.006)
        assert line["p"] == f"{cell.p:.2g}"
        assert line["holm"] == ("–" if cell.adjusted is None else f"{cell.adjusted:.2g}")


def test_the_report_agrees_with_compare(bench, quickstart, tmp_path):
    """What a click on a difference shows: p, Holm's p, the test, its unit, what it is over."""
    folder, page = RESULTS / "quickstart", tmp_path / "page.html"
    assert bench("report", "--workspace", folder, "--out", page).code == 0
    shown = re.findall(r'title="p (\S+), (exploratory|\S+ by Holm); ([^"]*)"', page.read_text())
    said = [
        (
            line["p"],
            "exploratory" if line["holm"] == "–" else f"{line['holm']} by Holm",
            line["test"],
        )
        for line, _ in lines_of_all(bench, quickstart)
    ]
    assert sorted(shown) == sorted(said)


def test_the_family_of_the_committed_table_is_holms(bench, quickstart):
    """Two columns of four differences, by hand."""
    lines = [line for line, _ in lines_of_all(bench, quickstart)]
    declared = [line for line in lines if line["holm"] != "–"]
    assert len(declared) == 8
    corrected = holm_of([float(line["p"]) for line in declared])
    assert sorted(float(line["holm"]) for line in declared) == pytest.approx(corrected, rel=0.1)


# ---- refusals


def test_an_unknown_method_has_near_names(bench, toy):
    result = bench("compare", "contxt-encoder", "random", "--workspace", toy)
    fails(result, 2, "unknown method 'contxt-encoder'", "did you mean context-encoder")


def test_an_unknown_protocol_has_near_names(bench, toy):
    result = bench("compare", "random", "Telea", "--protocol", "knn/dino", "--workspace", toy)
    fails(result, 2, "unknown protocol 'knn/dino'", "knn/dinov2@1")


def test_another_version_of_a_protocol_is_not_installed(bench, toy):
    result = bench("compare", "random", "Telea", "--protocol", "knn/dinov2@7", "--workspace", toy)
    fails(result, 2, "knn/dinov2@7 is not installed", "knn/dinov2@1")


def test_methods_without_a_common_number(bench, toy):
    result = bench("compare", "random", "Telea", "--workspace", toy)
    fails(result, 2, "random and Telea share no number")


def test_a_method_without_a_number_of_the_protocol_is_not_called_unknown(bench, toy):
    words = ("random", "context-encoder", "--protocol", "svm/goyal19-voc07")
    result = bench("compare", *words, "--workspace", toy)
    fails(result, 2, "random")
    assert "unknown method" not in result.err


def test_a_damaged_predictions_file_is_named(bench, tmp_path):
    for method in ("a", "b"):
        stored(tmp_path, method, answers(6, 4))
    path = only(tmp_path, "evaluation/*-b-*/predictions.npz")
    path.write_bytes(path.read_bytes()[:-30])
    fails(bench("compare", "a", "b", "--workspace", tmp_path), 1, str(path))
    gc.collect()  # a file that was left open warns now


# ---- other images


def test_other_test_images_are_never_paired(bench, tmp_path):
    """The same name and number of them, and another content."""
    stored(tmp_path, "a", MORE, data="one")
    stored(tmp_path, "b", LESS, data="other")
    fails(bench("compare", "a", "b", "--workspace", tmp_path), 2, "share no number")


def test_a_method_of_one_seed_meets_that_seed_of_one_of_several(bench, tmp_path):
    """Of 100 images 60 are right of one alone and 25 of the other: by McNemar's exact p."""
    for seed, right in enumerate((90, 60, 10)):
        stored(tmp_path, "several", answers(right, 100 - right), seed=seed)
    stored(tmp_path, "single", answers(0, 60, 25, 15), seed=1)
    for words, sign in ((("several", "single"), "+"), (("single", "several"), "−")):
        made = bench.ok("compare", *words, "--workspace", tmp_path).out
        (line,) = (row for row in made.splitlines() if row.startswith("linear"))
        values = re.findall(r"[+−-]?\d+\.\d+", line)
        assert sorted(values[:2]) == ["25.00", "60.00"]
        assert values[2].replace("-", "−") == f"{sign}35.00"
        assert "of these weights" in line
        assert "numbers are of those that both have" in made
        assert float(line.split("±")[1].split()[1]) == pytest.approx(
            stats.binomtest(25, 85).pvalue, rel=0.05
        )


def test_numbers_are_of_the_seeds_that_the_difference_is_of(bench, tmp_path):
    for seed, right in enumerate((90, 60, 10)):
        stored(tmp_path, "several", answers(right, 100 - right), seed=seed)
    for seed, right in enumerate((50, 40)):
        stored(tmp_path, "fewer", answers(right, 100 - right), seed=seed)
    made = bench.ok("compare", "several", "fewer", "--workspace", tmp_path).out
    (line,) = (row for row in made.splitlines() if row.startswith("linear"))
    assert re.findall(r"[+-]?\d+\.\d+", line)[:3] == ["75.00", "45.00", "+30.00"]
    assert "numbers are of those that both have" in made


def test_seeds_on_other_test_images_are_never_paired(bench, tmp_path):
    for seed in (0, 1, 2):
        stored(tmp_path, "a", answers(60 + seed, 40 - seed), data="one", seed=seed)
        stored(tmp_path, "b", answers(50, 50), data="other", seed=seed)
    fails(bench("compare", "a", "b", "--workspace", tmp_path), 2, "share no number")


def test_a_method_measured_on_two_sets_of_one_name_is_compared_on_the_shared_one(bench, tmp_path):
    stored(tmp_path, "a", MORE, data="one")
    stored(tmp_path, "a", answers(10, 90), data="other")
    stored(tmp_path, "b", LESS, data="one")
    (line,) = compared(bench, tmp_path, "a", "b").values()
    assert (float(line["a"]), float(line["gap"])) == (60, 8)
