"""`bench data list | get | check`: what is there, fetched from a server of ours, and checked."""

import hashlib
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from torchvision.datasets import SBDataset
from torchvision.datasets.voc import DATASET_YEAR_DICT

from helpers.bench import Bench
from helpers.photos import draw_photo
from helpers.refusals import fails
from helpers.server import Server, serving
from helpers.voc_folders import (
    LISTS,
    add_masks,
    annotate,
    make_year,
    thing,
    write_list,
    write_mask,
    write_sbd,
)
from ssl_bench.data.voc import dataset as voc
from ssl_bench.data.voc import official

EXTRA = {"train": ["000001", "000003", "2008_000001"], "val": ["2008_000002"]}


@pytest.fixture
def year(tmp_path: Path) -> Path:
    """A folder like VOC2007's: six images of 96×80 px; a test may spoil it."""
    return add_masks(make_year(tmp_path / "VOC2007"))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where official sets are looked for: a folder that is not there yet."""
    folder = tmp_path / "sets"
    monkeypatch.setenv("SSL_BENCH_DATA", str(folder))
    return folder


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Official sizes of sets made by hand."""
    for name, lists in [("voc07", ("trainval", "test")), ("voc12", ("train", "val"))]:
        sizes = [(listed, len(LISTS[listed])) for listed in lists]
        monkeypatch.setitem(voc.OFFICIAL, name, {"Main": sizes, "Segmentation": sizes})
    monkeypatch.setattr(
        official, "SBD_SIZES", {name: len(images) for name, images in EXTRA.items()}
    )


# ---- list
def test_list_says_what_is_there(bench: Bench, home: Path, small: None) -> None:
    made = bench.ok("data", "list").out
    said = "\n".join(re.sub(r"^(\S+) +", r"\1 ", line) for line in made.splitlines())
    assert "folder a folder of images is asked for as folder:PATH" in said
    assert "scenes nothing is stored" in said
    assert "detection: train 2,000, test 2,000" in said
    for name in ("voc07", "voc12"):
        assert f"{name} {name} is not there: {home}" in said
        assert f"`bench data get {name}`" in said
    add_masks(make_year(home / "VOCdevkit" / "VOC2007"))
    lines = bench("data", "list").out.splitlines()
    place = next(i for i, line in enumerate(lines) if line.startswith("voc07"))
    assert lines[place].split() == ["voc07", str(home / "VOCdevkit" / "VOC2007")]
    tasks = ("classification", "detection", "segmentation")
    for line, task in zip(lines[place + 1 :], tasks, strict=False):
        assert line.strip() == f"{task}: train 4, test 2"


def test_list_does_not_take_another_set_for_the_official(bench: Bench, home: Path) -> None:
    root = make_year(home / "VOCdevkit" / "VOC2007")
    lines = bench("data", "list").out.splitlines()
    (line,) = [line for line in lines if line.startswith("voc07 ")]
    for part in ("incomplete", "ImageSets/Segmentation", "bench data get voc07"):
        assert part in line
    add_masks(root)
    lines = bench("data", "list").out.splitlines()
    (line,) = [line for line in lines if line.startswith("voc07 ")]
    for part in (f"{root} is not voc07", "test of 2 images", f"voc:{root},name=voc07-mini"):
        assert part in line


# ---- check
def test_check_counts_what_is_in_a_set(bench: Bench, year: Path) -> None:
    draw_photo(3).convert("L").save(year / "JPEGImages" / "000002.jpg")
    write_mask(year, "000004", np.zeros((80, 96)))
    made = bench.ok("data", "check", f"voc:{year}", "--workers", 0)
    lines = [" ".join(line.split()) for line in made.out.splitlines()]
    for line in (
        "train, classification: 4 images, 1 grey",
        "train, detection: 4 images, 1 grey, 1 without objects; 6 objects, 3 difficult",
        "test, detection: 2 images, 0 grey, 0 without objects; 4 objects, 2 difficult",
        "class images difficult only",
        "class objects difficult images",
        "dog 2 1",
        "dog 4 2 3",
        "person 2 1 2",
    ):
        assert line in lines
    (about,) = [line for line in lines if line.startswith("train, segmentation")]
    assert about.startswith("train, segmentation: 4 images, 1 grey, 1 without objects; ")
    borders = sum(40 * (25 + i) - 36 * (21 + i) for i in range(3))
    assert f"{borders / (4 * 96 * 80):.1%} void" in about
    assert f"aeroplane 1 {36 * 21 / (4 * 96 * 80):.2%}" in lines


def test_check_of_scenes_and_folders(bench: Bench, tiny_photos: Path) -> None:
    made = bench.ok("data", "check", "scenes:train=10,test=10", "--workers", 0)
    assert made.out.count("10 images") == 6
    assert "0.0% void" in made.out
    made = bench.ok("data", "check", f"folder:{tiny_photos}", "--workers", 0)
    assert "train, classification: 18 images, 0 grey" in made.out
    made = bench.ok("data", "check", f"folder:{tiny_photos / 'val' / 'ant'}", "--workers", 0)
    assert "train, classification: 3 images, 0 grey, no labels" in made.out


def test_check_reports_the_faults_of_all_tasks(bench: Bench, year: Path) -> None:
    annotate(year, "000001", thing("dog", box=(1, 1, 500, 50)))
    annotate(year, "000005", thing("dog", difficult=3))
    write_mask(year, "000002", np.full((80, 96), 99))
    (year / "JPEGImages" / "000004.jpg").write_text("no image")
    made = bench("data", "check", f"voc:{year}", "--workers", 0)
    assert made.code == 1
    report = made.err[made.err.index("bench: ") :].splitlines()
    assert report[0] == "bench: 4 faults in voc:VOC2007:"
    for part in (" 500, ", "difficult '3'", "index 99", "000004.jpg cannot be read"):
        assert sum(part in line for line in report[1:-1]) == 1
    assert report[-1] == "mend them"
    assert "train, detection: 2 images" in made.out  # what is good is counted all the same
    assert "Traceback" not in made.err


def test_check_of_one_task(bench: Bench, year: Path) -> None:
    write_mask(year, "000002", np.full((80, 96), 99))
    made = bench.ok("data", "check", f"voc:{year}", "--task", "detection", "--workers", 0)
    assert made.out.count(" images, ") == 2
    made = bench("data", "check", f"voc:{year}", "--task", "segmentation", "--workers", 0)
    fails(made, 1, "000002.png", "index 99")
    spec = f"folder:{year / 'JPEGImages'}"
    fails(bench("data", "check", spec, "--task", "detection"), 1, "only for classification")


def test_check_counts_hundreds_of_faults_by_kind(bench: Bench, year: Path) -> None:
    write_list(year, "trainval", [f"{i:06}" for i in range(1, 201)])
    made = bench("data", "check", f"voc:{year}", "--workers", 0)
    assert made.code == 1
    report = made.err[made.err.index("bench: ") :].splitlines()
    assert report[0] == f"bench: {2 * 194} faults in voc:VOC2007:"
    assert report.count("  … and 191 more like these") == 2  # images, and annotations
    assert len(report) == 10


def test_a_folder_that_is_there_is_proposed(
    bench: Bench, year: Path, tiny_photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny_photos.parent)
    fails(bench("data", "check", "photos"), 2, "'photos' is no dataset's name", "folder:photos")
    fails(bench("data", "check", year), 2, f"give voc:{year}")
    fails(bench("data", "check", "photos/val/ant/0.jpg"), 2, "a file: unpack it")


def test_check_of_what_is_not_there(bench: Bench, home: Path, tmp_path: Path) -> None:
    fails(bench("data", "check", "voc07"), 1, "voc07 is not there", "`bench data get voc07`")
    fails(bench("data", "check", "vco07"), 2, "did you mean voc07")
    fails(bench("data", "check", f"voc:{tmp_path / 'no'}"), 1, "is not a folder")
    fails(bench("data", "chekc"), 2, "did you mean check")


# ---- get
def pack(path: Path, folder: Path, names: list[str]) -> tuple[str, str]:
    """An archive of what lies in `folder`, and its MD5."""
    mode = "w:gz" if path.suffix == ".tgz" else "w"
    with tarfile.open(path, mode) as archive:
        for name in names:
            archive.add(folder / name, name)
    return path.name, hashlib.md5(path.read_bytes()).hexdigest()


@pytest.fixture
def server(tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """The archives, small ones, from this machine; requests are counted in `asked`."""
    kit, served = tmp_path / "kit", tmp_path / "served"
    served.mkdir()
    make_archives(kit, served, monkeypatch)
    with serving(served) as made:
        base = made.base
        for key in ("2007", "2007-test", "2012"):
            entry = DATASET_YEAR_DICT[key]
            monkeypatch.setitem(entry, "url", f"{base}/{entry['filename']}")
        monkeypatch.setattr(SBDataset, "url", f"{base}/{SBDataset.filename}")
        yield made


def make_archives(kit: Path, served: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for year, parts in [("2007", {"2007": ["trainval"], "2007-test": ["test"]}),
                        ("2012", {"2012": ["train", "val", "trainval"]})]:  # fmt: skip
        root = add_masks(make_year(kit / "VOCdevkit" / f"VOC{year}"))
        for key, lists in parts.items():
            names = [f"ImageSets/{f}/{n}.txt" for f in ("Main", "Segmentation") for n in lists]
            for image in {image for name in lists for image in LISTS[name]}:
                names += [f"JPEGImages/{image}.jpg", f"Annotations/{image}.xml"]
                names += [f"SegmentationClass/{image}.png"]
            entry = DATASET_YEAR_DICT[key]
            inside = [str((root / name).relative_to(kit)) for name in names]
            _, digest = pack(served / entry["filename"], kit, inside)
            monkeypatch.setitem(entry, "md5", digest)
    write_sbd(kit / "benchmark_RELEASE" / "dataset", EXTRA, {})
    (kit / "benchmark_RELEASE" / "dataset" / "inst").mkdir()
    _, digest = pack(served / SBDataset.filename, kit, ["benchmark_RELEASE"])
    monkeypatch.setattr(SBDataset, "md5", digest)


def test_get_fetches_both_archives_of_voc07_once(bench, home, server):
    made = bench.ok("data", "get", "voc07")
    root = home / "VOCdevkit" / "VOC2007"
    assert f"voc07 is in {root}" in made.out
    assert "segmentation: train 4, test 2" in made.out
    assert "fetching VOCtrainval_06-Nov-2007.tar" in made.err
    assert "100%" in made.err  # a bar
    bench.ok("data", "check", "voc07", "--workers", 0)
    assert set(server.asked) == {"/VOCtrainval_06-Nov-2007.tar", "/VOCtest_06-Nov-2007.tar"}
    del server.asked[:]
    bench.ok("data", "get", "voc07")
    assert not server.asked


def test_get_completes_what_is_there_in_part(bench, home, server):
    bench.ok("data", "get", "voc07")
    (home / "VOCdevkit" / "VOC2007" / "JPEGImages" / "000005.jpg").unlink()
    for archive in home.glob("*.tar"):
        archive.unlink()
    del server.asked[:]
    bench.ok("data", "get", "voc07")
    assert set(server.asked) == {"/VOCtest_06-Nov-2007.tar"}
    bench.ok("data", "check", "voc07", "--workers", 0)


def test_get_sbd_into_the_place_it_is_looked_for(bench, home, server):
    made = bench.ok("data", "get", "voc12+sbd")
    assert "segmentation: train 4, test 2" in made.out
    root = home / "benchmark_RELEASE" / "dataset"
    assert sorted(p.name for p in root.glob("*.txt")) == ["train.txt", "val.txt"]
    assert (root / "cls" / "2008_000002.mat").is_file()
    del server.asked[:]
    bench.ok("data", "get", "voc12+sbd")
    assert not server.asked
    (root / "cls" / "2008_000002.mat").unlink()
    fails(bench("data", "get", "voc12+sbd"), 1, "incomplete", f"remove {root / 'cls'}")


def test_archive_put_there_by_hand_is_unpacked(bench, home, server, tmp_path):
    home.mkdir()
    for path in (tmp_path / "served").glob("VOC*2007.tar"):
        (home / path.name).write_bytes(path.read_bytes())
    bench.ok("data", "get", "voc07")
    assert not server.asked


@pytest.mark.parametrize(
    ("name", "file"),
    [("voc07", "VOCtrainval_06-Nov-2007.tar"), ("voc12", "VOCtrainval_11-May-2012.tar")],
)
def test_get_without_a_network(bench, home, server, name, file):
    server.shutdown()
    server.server_close()
    made = bench("data", "get", name)
    fails(made, 1, file, f"into {home} by hand", f"`bench data get {name}` unpacks it")
    assert not (home / "VOCdevkit").exists()


def test_get_of_a_damaged_archive(bench, home, server, monkeypatch):
    monkeypatch.setitem(DATASET_YEAR_DICT["2012"], "md5", "0" * 32)
    fails(bench("data", "get", "voc12"), 1, "VOCtrainval_11-May-2012.tar", "corrupted", "by hand")
    monkeypatch.setitem(DATASET_YEAR_DICT["2012"], "url", DATASET_YEAR_DICT["2012"]["url"] + "x")
    fails(bench("data", "get", "voc12"), 1, "404", "by hand")


def test_get_refuses_to_mix_sets(bench: Bench, home: Path, server: Server) -> None:
    root = make_year(home / "VOCdevkit" / "VOC2007")
    write_list(root, "trainval", ["000001"])
    before = {p: p.stat().st_mtime_ns for p in root.rglob("*")}
    parts = (f"{root} holds another set", "trainval.txt lists 1 image", "4;", "SSL_BENCH_DATA")
    fails(bench("data", "get", "voc07"), 1, *parts)
    assert {p: p.stat().st_mtime_ns for p in root.rglob("*")} == before
    assert not server.asked


def test_get_of_what_cannot_be_had(bench: Bench, home: Path) -> None:
    fails(bench("data", "get", "voc11"), 2, "'voc11'", "did you mean voc1")
    fails(bench("data", "get", "scenes"), 2, "'scenes'", "voc07, voc12, voc12+sbd")


# ---- real photographs
@pytest.mark.photos
def test_packs_are_listed_and_checked(bench: Bench, photos: Path) -> None:
    listed = bench("data", "list").out
    for year, name in (("VOC2007", "voc07"), ("VOC2012", "voc12")):
        assert f"{photos / 'VOCdevkit' / year} is not {name}" in listed
    root = photos / "VOCdevkit" / "VOC2007"
    made = bench.ok("data", "check", f"voc:{root},name=voc07-mini", "--task", "detection")
    # Both halves together: all 14,976 objects of VOC2007's test, as its authors count them.
    assert "7,552 objects" in made.out
    assert "7,424 objects" in made.out


def test_help_names_the_commands(bench: Bench) -> None:
    out = bench("data", "--help").out
    assert all(name in out for name in ("list", "get", "check"))
