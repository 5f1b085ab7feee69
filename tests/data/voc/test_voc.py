"""`voc:PATH`: labels from annotations, lists, class files, the store, the command line."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from helpers.bench import Bench
from helpers.photos import draw_photo
from helpers.refusals import TOY, fails, only
from helpers.voc_folders import (
    LISTS,
    annotate,
    labels,
    make_year,
    opened,
    refused,
    thing,
    write_list,
)
from ssl_bench import catalogue
from ssl_bench.data.faults import Faults, lines_of
from ssl_bench.data.voc.files import CLASSES, list_names, read_objects
from ssl_bench.errors import DataError

DOG, CAT, PERSON = (CLASSES.index(name) for name in ("dog", "cat", "person"))


# ---- labels
def test_twenty_classes_in_alphabetical_order() -> None:
    assert len(CLASSES) == 20
    assert list(CLASSES) == sorted(set(CLASSES))


def test_there_not_there_and_difficult_only(year: Path) -> None:
    found = labels(year)
    assert found.dtype == np.int8
    assert found.shape == (4, 20)
    assert found[:, DOG].tolist() == [1, -1, 1, 0]
    assert found[:, PERSON].tolist() == [1, 0, -1, 0]
    assert not np.delete(found, [DOG, PERSON], 1).any()
    test = labels(year, "test")
    assert {CLASSES[c]: int(k) for i, c in np.argwhere(test) for k in [test[i, c]]} == {
        "chair": 1, "person": 1, "tvmonitor": -1,
    }  # fmt: skip


def test_a_difficult_object_after_another_takes_nothing_away(year: Path) -> None:
    annotate(year, "000001", thing("dog"), thing("dog", difficult=1))
    assert labels(year)[0, DOG] == 1


def test_objects_of_an_annotation(tmp_path: Path) -> None:
    """Decimals, and what some of VOC2012's have: no flags, parts of a person, actions."""
    part = "<part><name>head</name><bndbox><xmin>9</xmin><ymin>9</ymin></bndbox></part>"
    bare = thing("person", more=part).replace("\t\t<truncated>1</truncated>\n", "")
    bare = bare.replace("\t\t<difficult>0</difficult>\n", "<actions><other>1</other></actions>")
    things = [thing(" dog ", difficult=1, box=("45.70000076293945", 18.04, 4e2, "40")), bare]
    dog, person = read_objects(annotate(tmp_path, "2011_003353", *things))
    assert dog.name == "dog"
    assert dog.box == (45.70000076293945, 18.04, 400.0, 40.0)
    assert all(isinstance(edge, float) for edge in dog.box)
    assert dog.difficult
    assert (person.name, person.box) == ("person", (1.0, 2.0, 30.0, 40.0))
    assert not person.difficult


# ---- lists
def test_voc07s_custom_and_voc12s(year: Path, tmp_path: Path) -> None:
    dataset = catalogue.dataset(f"voc:{year}")
    assert dataset.split("train").names == LISTS["trainval"]
    assert dataset.split("test").names == LISTS["test"]
    lists = {name: LISTS[name] for name in ("train", "val", "trainval")}
    dataset = catalogue.dataset(f"voc:{make_year(tmp_path / 'VOC2012', lists)}")
    assert dataset.split("train").names == LISTS["train"]
    assert dataset.split("test").names == LISTS["val"]


def test_other_lists_and_the_printed_name(year: Path) -> None:
    for options, name, train, test in [
        ("", "voc:VOC2007", "trainval", "test"),
        (",train=trainval,test=test", "voc:VOC2007", "trainval", "test"),
        (",test=val,train=train", "voc:VOC2007,train=train,test=val", "train", "val"),
        (",name=voc07-mini,train=train", "voc07-mini", "train", "test"),
    ]:
        dataset = catalogue.dataset(f"voc:{year}{options}")
        assert dataset.name == name
        assert dataset.split("train").names == LISTS[train]
        assert dataset.split("test").names == LISTS[test]


def test_a_path_with_a_comma_and_a_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_year(tmp_path / "a,b" / "VOC2007")
    monkeypatch.setenv("HOME", str(tmp_path))
    for path in (tmp_path / "a,b" / "VOC2007", "~/a,b/VOC2007"):
        assert catalogue.dataset(f"voc:{path},name=mine").name == "mine"


def test_official_files_line_ends_and_blanks(year: Path) -> None:
    before = labels(year)
    write_list(year, "trainval", LISTS["trainval"], end="\r\n")
    assert catalogue.dataset(f"voc:{year}").split("train").names == LISTS["trainval"]
    write_list(year, "trainval", ["\ufeff000001", "", "000002 ", "\t000003", "000004", " "])
    np.testing.assert_array_equal(labels(year), before)


def test_class_files_are_no_lists_of_their_own(year: Path) -> None:
    """`train` is a list and a class: train_val.txt says where there are trains in val."""
    before = list_names(year / "ImageSets" / "Main")
    for name in ("dog_train", "train_train", "train_val", "train_trainval", "tvmonitor_test"):
        write_list(year, name, [])
    write_list(year, "dog_people", ["000001"])  # there is no list `people`
    assert before == ["test", "train", "trainval", "val"]
    assert list_names(year / "ImageSets" / "Main") == sorted([*before, "dog_people"])


# ---- class files
def test_class_files_that_agree(year: Path) -> None:
    """Columns and line ends as in the official files."""
    before = labels(year)
    dogs = ["000001  1", "000002  0", "000003  1", "000004 -1"]
    write_list(year, "dog_trainval", dogs, end="\r\n")
    write_list(year, "person_trainval", ["000004 -1 ", "000002\t-1", "000003   0", "000001  1"])
    write_list(year, "sheep_trainval", [f"{image} -1" for image in LISTS["trainval"]])
    write_list(year, "dog_train", ["000001 -1", "000002 -1"])  # of a list that nobody asks for
    np.testing.assert_array_equal(labels(year), before)


@pytest.mark.parametrize(
    ("image", "said", "found"),
    [("000001", "-1", "1"), ("000001", "0", "1"), ("000002", "1", "0"), ("000004", "1", "-1")],
)
def test_class_file_that_disagrees(year: Path, image: str, said: str, found: str) -> None:
    right = {"000001": "1", "000002": "0", "000003": "1", "000004": "-1"} | {image: said}
    path = write_list(year, "dog_trainval", [f"{i} {k:>2}" for i, k in right.items()])
    message = f"says {said} for {image}, but its annotation says {found}: mend"
    refused(DataError, lambda: labels(year), path, message, "or remove dog_trainval.txt")
    labels(year, "test")  # whose class files are others


def test_class_file_of_other_images(year: Path) -> None:
    path = write_list(year, "dog_trainval", ["000001  1", "000002  0", "000003  1"])
    refused(DataError, lambda: labels(year), path, "trainval.txt", "000004", "remove")
    lines = ["000001  1", "000002  0", "000003  1", "000004 -1", "000009 -1"]
    write_list(year, "dog_trainval", lines)
    refused(DataError, lambda: labels(year), path, "trainval.txt", "000009", "remove")


@pytest.mark.parametrize("line", ["000001", "000001 2", "000001 1 1", "../000001 1", "000001 +1"])
def test_class_file_with_a_strange_line(year: Path, line: str) -> None:
    path = write_list(year, "dog_trainval", ["", line])
    refused(DataError, lambda: labels(year), f"line 2 of {path}", line, "1, -1 or 0")


# ---- the store
def test_store_keeps_what_is_not_to_be_judged(year: Path) -> None:
    store = opened(year)
    for again in (store, opened(year)):  # decoded, and read back
        assert again.folder == store.folder
        assert again.targets.dtype == np.int8
        np.testing.assert_array_equal(again.targets, labels(year))
        assert again.index.names == LISTS["trainval"]
        assert again.index.classes == CLASSES
    assert (store.targets == -1).sum() == 2
    refused(DataError, lambda: store.labels, "several labels each", "`bench svm`")


def test_bad_images_are_named_or_skipped(year: Path) -> None:
    whole = opened(year)
    text, small = (year / "JPEGImages" / f"{name}.jpg" for name in ("000002", "000004"))
    text.write_text("no image")
    draw_photo(0, 60, 6).save(small)
    with pytest.raises(Faults) as raised:
        opened(year)
    unread, too_small = lines_of(raised.value)
    assert f"{text} cannot be read as an image (not an image)" in unread
    assert f"{small} is 60×6, and an image has at least 8 px a side" in too_small
    assert str(raised.value).endswith("or pass --skip-bad-images to leave these images out")
    rest = opened(year, skip_bad_images=True)
    assert rest.index.names == ["000001", "000003"]
    assert [str(p) in m for p, m in zip((text, small), rest.index.skipped, strict=True)] == [1, 1]
    np.testing.assert_array_equal(rest.targets, whole.targets[[0, 2]])
    np.testing.assert_array_equal(rest.pixels, whole.pixels[[0, 2]])


def test_another_annotation_is_another_store(year: Path) -> None:
    before = opened(year)
    path = year / "Annotations" / "000001.xml"
    times = path.stat()
    path.write_text(path.read_text().replace("dog", "cat"))  # of the same length
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    after = opened(year)
    assert after.folder != before.folder
    assert after.index.digest != before.index.digest
    assert after.index.digests == before.index.digests
    assert (after.targets[0, DOG], after.targets[0, CAT]) == (0, 1)


def rewrite_image(year: Path) -> None:
    draw_photo(9).save(year / "JPEGImages" / "000001.jpg")


def move_box(year: Path) -> None:
    annotate(year, "000001", thing("dog", box=(1, 2, 30, 41)), thing("person"))


def turn_list(year: Path) -> None:
    write_list(year, "trainval", LISTS["trainval"][::-1])


def edit_behind_a_link(year: Path) -> None:
    path = year / "JPEGImages" / "000001.jpg"
    path.rename(year / "elsewhere.jpg")
    path.symlink_to(year / "elsewhere.jpg")
    before = catalogue.dataset(f"voc:{year}").split("train").fingerprint
    draw_photo(9).save(year / "elsewhere.jpg")
    assert catalogue.dataset(f"voc:{year}").split("train").fingerprint != before


@pytest.mark.parametrize("change", [rewrite_image, move_box, turn_list, edit_behind_a_link])
def test_fingerprint_follows_every_file(year: Path, change: Callable[[Path], None]) -> None:
    before = catalogue.dataset(f"voc:{year}").split("train").fingerprint
    (year / "ImageSets" / "Main" / "val.txt").touch()
    assert catalogue.dataset(f"voc:{year}").split("train").fingerprint == before
    assert catalogue.dataset(f"voc:{year}").split("test").fingerprint != before
    change(year)
    assert catalogue.dataset(f"voc:{year}").split("train").fingerprint != before


# ---- the command line
def test_pretrain_on_voc_and_a_probe_that_cannot(bench: Bench, workspace: Path, year: Path) -> None:
    where = ("--workspace", workspace, "--data", f"voc:{year},name=tiny-voc")
    made = bench.ok("pretrain", "random", *TOY, *where)
    assert "on tiny-voc" in made.out
    record = json.loads(only(workspace, "pretrain/random-*/record.json").read_text())
    assert record["data"] == "tiny-voc"
    assert record["details"]["images"] == 4
    fails(bench("linear-probe", "--workers", 0, *where), 1, "several labels", "`bench svm`")
    assert not list(workspace.glob("evaluation/*/record.json"))


def test_refusals_on_the_command_line(bench: Bench, workspace: Path, year: Path) -> None:
    command = ("pretrain", "random", *TOY, "--workspace", workspace, "--data")
    fails(bench(*command, f"voc:{year},train=tranval"), 2, "did you mean", "trainval")
    fails(bench(*command, f"voc:{year},name=voc07"), 2, "4,952", "voc07-mini")
    (year / "JPEGImages" / "000002.jpg").write_text("no image")
    fails(bench(*command, f"voc:{year}"), 1, "000002.jpg", "--skip-bad-images")
    made = bench.ok(*command, f"voc:{year}", "--skip-bad-images")
    assert "on voc:VOC2007, 1 bad image skipped" in made.out
