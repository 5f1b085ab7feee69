"""Reports of many faults: by kind, three of each, all counted."""

from ssl_bench.data.faults import EXAMPLES, KINDS, Faults, by_kind


def test_faults_of_one_kind_stand_together() -> None:
    bad = "cannot be read as an image (not an image): mend or remove it"
    lines = [f"/data/my photos/v1.0 new/{i}/a {i}.jpg {bad}" for i in range(70)]
    lines += [
        f"/data/x/{i}.xml: 'thing {i}' is no class; did you mean c{i} or d?" for i in range(5)
    ]
    lines += [f"/data/x/{i}.jpg is missing, though a.txt lists {i}" for i in range(4)]
    lines += [f"/data/x/{i}.xml is missing, though a.txt lists {i}" for i in range(4)]
    mixed = [*lines[1::2], *lines[::2]]
    assert sorted(map(len, by_kind(mixed))) == [4, 4, 5, 70]
    report = str(Faults(mixed, "photos train", ", or pass --x")).splitlines()
    assert report[0] == "83 faults in photos train:"
    assert report[1 : EXAMPLES + 1] == [f"  {line}" for line in lines[1 : 2 * EXAMPLES : 2]]
    assert report[EXAMPLES + 1] == "  … and 67 more like these"
    assert len(report) == 1 + 4 * (EXAMPLES + 1) + 1
    assert report[-1] == "mend them, or pass --x"


def test_faults_of_many_kinds_are_counted() -> None:
    words = [chr(97 + i) * 3 for i in range(26)]
    report = str(Faults(words, "x")).splitlines()
    assert len(report) == KINDS + 3
    assert report[-2] == f"  … and {26 - KINDS} more of other kinds"


def test_a_single_fault_is_the_whole_message() -> None:
    assert str(Faults(["the same", "the same"], "x", ", or pass --x")) == "the same, or pass --x"
