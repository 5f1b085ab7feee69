"""What the reader of VOC's folders refuses: requests, lists, annotations; each in a line."""

from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from helpers.voc_folders import (
    LISTS,
    THINGS,
    annotate,
    labels,
    make_year,
    refused,
    thing,
    write_list,
)
from ssl_bench import catalogue
from ssl_bench.data.voc.files import CLASSES, read_list, read_objects
from ssl_bench.errors import DataError, UsageError


# ---- refusals: what is asked for
@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (",train=trainvl", ("'trainvl'", "did you mean trainval")),
        (",test=xyz", ("'xyz'", "known: test, train, trainval, val")),
        (",test=../Main/test", ("'../Main/test'",)),
        (",test=", ("''", "known: test")),
        (",lists=train", ("option of voc 'lists'", "did you mean classes?")),
        (",nme=x", ("option of voc 'nme'", "did you mean name?")),
        (",name=", ("''", "letters")),
        (",name=a/b", ("'a/b'", "letters")),
        (",name=..", ("'..'", "letters")),
        (",name=scenes", ("'scenes'", "no other dataset's name")),
        (",name=voc:VOC2012", ("'voc:VOC2012'", "letters")),
    ],
)
def test_options_that_cannot_be_met(year: Path, options: str, parts: tuple[str, ...]) -> None:
    refused(UsageError, lambda: catalogue.dataset(f"voc:{year}{options}"), *parts)


def test_list_that_the_custom_needs_and_the_folder_lacks(tmp_path: Path) -> None:
    dataset = catalogue.dataset(f"voc:{make_year(tmp_path / 'y', {'train': LISTS['train']})}")
    assert dataset.split("train").names == LISTS["train"]
    refused(
        UsageError,
        lambda: dataset.split("test"),
        tmp_path / "y",
        "no val.txt to test on",
        "only train:",
    )


def test_folders_that_are_none_of_voc(year: Path, tmp_path: Path) -> None:
    def asking(argument: object) -> Callable[[], object]:
        return lambda: catalogue.dataset(f"voc:{argument}")

    refused(UsageError, asking(""), "voc:PATH[,name=NAME][,train=LIST][,test=LIST]")
    refused(UsageError, asking(",name=x"), "voc:PATH")
    refused(DataError, asking(tmp_path / "nowhere"), tmp_path / "nowhere", "existing")
    refused(DataError, asking(f"{year},voc07-mini"), "VOC2007,voc07-mini", ",name=NAME")
    refused(DataError, asking(tmp_path), f"{tmp_path} has no JPEGImages/", "VOCdevkit/VOC2007")
    (year / "JPEGImages").rename(year / "images")
    refused(DataError, asking(year), f"{year} has no JPEGImages/")


def official(root: Path, sizes: Mapping[str, int]) -> Path:
    """Lists of official length; the images are not looked at until a split is asked for."""
    for name, size in sizes.items():
        write_list(root, name, [f"{i:06}" for i in range(size)])
    return root


VOC07, VOC12 = {"trainval": 5011, "test": 4952}, {"train": 5717, "val": 5823, "trainval": 11540}


@pytest.mark.parametrize(("name", "sizes"), [("voc07", VOC07), ("voc12", VOC12)])
def test_reserved_names_of_official_lists(year: Path, name: str, sizes: dict[str, int]) -> None:
    (year / "ImageSets" / "Main" / "test.txt").unlink()
    official(year, sizes)
    for given in (name, name.upper()):
        assert catalogue.dataset(f"voc:{year},name={given}").name == name
    other = {"voc07": "voc12", "voc12": "voc07"}[name]
    refused(UsageError, lambda: catalogue.dataset(f"voc:{year},name={other}"), f"name {other} is")


def test_reserved_names_of_other_lists(year: Path) -> None:
    def asking(options: str) -> Callable[[], object]:
        return lambda: catalogue.dataset(f"voc:{year},{options}")

    parts = "trainval of 5,011 images and test of 4,952", "trainval of 4 images and test of 2"
    refused(UsageError, asking("name=voc07"), *parts, "such as voc07-mini")
    refused(UsageError, asking("name=VOC12"), "train of 5,717 images and val of 5,823 images")
    official(year, VOC07)
    refused(UsageError, asking("name=voc07,train=test,test=trainval"), "test of 4,952")
    refused(UsageError, asking("name=voc07,train=train"), "train of 2 images")


# ---- refusals: what is there
def test_list_entry_without_an_image(year: Path) -> None:
    path = year / "JPEGImages" / "000003.jpg"
    path.unlink()
    refused(DataError, lambda: labels(year), path, "missing", "trainval.txt lists 000003", "unpack")
    path.symlink_to(year / "moved.jpg")
    refused(DataError, lambda: labels(year), path, "missing")


def test_list_entry_without_an_annotation(year: Path) -> None:
    """Such as VOC2012's official test images."""
    path = year / "Annotations" / "000005.xml"
    path.unlink()
    remedy = "train=train,test=val"
    refused(DataError, lambda: labels(year, "test"), path, "test.txt lists 000005", remedy)
    labels(year, "test", f",{remedy}")


HOSTILE = ["../000001", "/etc/passwd", "a/b", "..", ".hidden", "a\\b", "a\0b", "a b", "x" * 101]
HOSTILE += ["\x1b[31mred", "\u202etxt.exe", "000001 1"]


@pytest.mark.parametrize("line", HOSTILE)
def test_list_line_that_is_no_plain_name(year: Path, line: str) -> None:
    path = write_list(year, "trainval", ["000001", line])
    refused(DataError, lambda: labels(year), f"line 2 of {path}", "an image's plain name")
    with pytest.raises(DataError) as raised:
        read_list(path)
    assert str(raised.value).isprintable()


def test_list_that_is_empty_repeats_or_is_no_text(year: Path) -> None:
    path = write_list(year, "trainval", ["", " "])
    refused(DataError, lambda: labels(year), path, "lists no images", "unpack")
    write_list(year, "trainval", ["000001", "000002", "000001"])
    refused(DataError, lambda: labels(year), f"line 3 of {path} repeats 000001", "leave one")
    path.write_bytes(b"\xff\xfe0\x000\x00")
    refused(DataError, lambda: labels(year), path, "cannot be read", "unpack")
    path.unlink()
    path.mkdir()
    refused(DataError, lambda: labels(year), path, "cannot be read")


def test_filename_of_another_image(year: Path) -> None:
    """Two annotations that changed places, and one that names nothing."""
    for filename in ("000002.jpg", "", "x" * 5000, "two\nlines.jpg"):
        path = annotate(year, "000001", thing("dog"), filename=filename)
        refused(DataError, lambda: labels(year), path, filename[:3], "instead of 000001.jpg: put")


@pytest.mark.parametrize(
    ("spoilt", "parts"),
    [
        (thing("zebra"), ("unknown class 'zebra'", "known: aeroplane, bicycle", "correct it")),
        (thing("Dog"), ("unknown class 'Dog'; did you mean dog?",)),
        (thing(""), ("unknown class ''",)),
        (thing("z\n" * 500), ("unknown class 'z z",)),
        (thing("dog", box=(1, 2, "wide", 4)), ("a dog with the box '1, 2, wide, 4'", "numbers")),
        (thing("dog", box=(1, 2, "", 4)), ("'1, 2, , 4'",)),
        (thing("dog", box=("nan", 2, 3, 4)), ("'nan, 2, 3, 4'",)),
        (thing("dog", box=(1, 2, "inf", 4)), ("'1, 2, inf, 4'",)),
        (thing("dog", box=(30, 2, 3, 4)), ("'30, 2, 3, 4'", "none below its opposite")),
        (thing("dog").replace("bndbox", "box"), ("the box ', , , '",)),
        (thing("dog", difficult=2), ("difficult '2'", "set it to 0 or 1")),
    ],
)
def test_object_that_cannot_be_used(year: Path, spoilt: str, parts: tuple[str, ...]) -> None:
    path = annotate(year, "000003", thing("dog"), spoilt)
    asked = f"voc:{year},classes={','.join(CLASSES)}"
    refused(DataError, lambda: catalogue.dataset(asked).split("train"), path, *parts)


def test_annotation_that_is_no_xml(year: Path) -> None:
    path = year / "Annotations" / "000002.xml"
    whole = path.read_bytes()
    strange = b'<?xml version="1.0" encoding="no"?>' + whole
    for content in (b"", whole[:-20], b"\x89PNG", b"<annotation/", strange):
        path.write_bytes(content)
        refused(DataError, lambda: labels(year), path, "cannot be read", "unpack it anew")
    path.unlink()
    path.mkdir()
    refused(DataError, lambda: labels(year), path, "cannot be read")


ENTITIES = "".join(f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in pairwise("abcdefghij"))
DOCTYPES = {
    "plain": "<!DOCTYPE annotation>",
    "dtd": '<!DOCTYPE annotation SYSTEM "voc.dtd">',
    "entity": "<!DOCTYPE annotation [<!ENTITY j 'dog'>]>",
    "external": '<!DOCTYPE annotation [<!ENTITY j SYSTEM "file://{secret}">]>',
    "parameter": '<!DOCTYPE annotation [<!ENTITY % p SYSTEM "file://{secret}"> %p;]>',
    "bomb": f'<!DOCTYPE annotation [<!ENTITY a "lol">{ENTITIES}]>',
}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize("kind", DOCTYPES)
def test_document_types_and_entities_are_refused(year: Path, kind: str, encoding: str) -> None:
    """Whatever they hold, so that nothing is fetched and nothing grows."""
    secret = year / "secret"
    secret.write_text("dog")
    path = annotate(year, "000002", thing("&j;"))
    text = DOCTYPES[kind].replace("{secret}", str(secret)) + path.read_text()
    path.write_bytes(f'<?xml version="1.0" encoding="{encoding}"?>{text}'.encode(encoding))
    refused(DataError, lambda: labels(year), path, "declares a DOCTYPE", "unpack")


def test_no_damage_gets_past_the_reader(tmp_path: Path) -> None:
    """A cut or wrong bytes anywhere give objects or a DataError that names the file."""
    path = annotate(tmp_path, "000001", *THINGS["000003"], thing("cat", box=(1.5, 2, 3, 4)))
    whole = path.read_bytes()
    random = np.random.default_rng(0)
    messages = []
    for i in range(400):
        content = bytearray(whole)
        for place in random.integers(0, len(whole), 3):
            content[place] = random.integers(0, 256)
        path.write_bytes(whole[: random.integers(len(whole))] if i % 4 == 0 else content)
        try:
            assert all(found.name in CLASSES for found in read_objects(path))
        except DataError as error:
            messages.append(str(error))
    assert len(messages) > 200
    assert all(str(path) in m and len(m.splitlines()) == 1 for m in messages)
