"""Plugins: one that is broken, or takes a name that is taken, is said and spoils nothing else."""

import sys

import pytest

from helpers.places import ROOT
from ssl_bench import catalogue, progress
from ssl_bench.errors import UsageError
from ssl_bench.records.protocols import _installed, protocols

OLD = ROOT / "tests" / "records" / "workspace-0.1.0"
KINDS = ("pretext", "eval", "data", "perf", "figure")
NO_PROTOCOL = "class Nameless:\n    pass\n"


def forget() -> None:
    """What the process found and said before is looked for, and said, again."""
    catalogue._found.cache_clear()
    _installed.cache_clear()
    progress.say_once.cache_clear()


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Install a package: its entry points by kind and name, and its module."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))

    def installed(package, entries, code=None):
        folder = site / f"{package}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        lines = [f"[ssl_bench.{kind}]\n{name} = {value}\n" for kind, name, value in entries]
        (folder / "entry_points.txt").write_text("\n".join(lines))
        if code is not None:
            (site / f"{package}.py").write_text(code)
        forget()

    forget()
    yield installed
    forget()
    for name in [n for n in sys.modules if n.startswith("stranger")]:
        del sys.modules[name]


@pytest.fixture
def broken(install):
    """A package whose entry points of all kinds lead to a module that fails as it is imported."""
    entries = [(kind, "strange", "stranger:Thing") for kind in KINDS]
    install("stranger", entries, "import no_such_library\n")


@pytest.mark.parametrize("kind", KINDS)
def test_a_broken_plugin_is_left_out_and_said_once(broken, kind, capsys):
    assert "strange" in catalogue.names(kind)
    for _ in range(2):
        found = catalogue.find_all(kind)
        assert list(found) == [name for name in catalogue.names(kind) if name != "strange"]
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    for part in (f"{catalogue.NOUNS[kind]} 'strange'", "package stranger", "no_such_library"):
        assert part in said[0]


@pytest.mark.parametrize("kind", KINDS)
def test_a_broken_plugin_that_is_asked_for_says_why(broken, kind):
    with pytest.raises(UsageError, match=f"{catalogue.NOUNS[kind]} 'strange'.*no_such_library"):
        catalogue.load(kind, "strange")


def test_records_are_read_whatever_is_broken(broken, bench):
    place = ("--workspace", OLD)
    for words in (
        ("table", *place),
        ("compare", "autoencoder", "random", *place),
        ("verify", OLD),
        ("protocols",),
        ("runs", *place),
    ):
        bench.ok(*words)


@pytest.mark.parametrize(
    "words", [("--help",), ("pretrain", "--help"), ("perf", "--help"), ("knn", "--help")]
)
def test_help_lists_what_is_broken_too(broken, bench, words):
    answer = bench.ok(*words)
    assert answer.out


@pytest.mark.parametrize(
    "words",
    [("strange",), ("pretrain", "strange"), ("perf", "strange"), ("inspect", "strange"),
     ("knn", "--data", "strange"), ("figures", "strange", "--out", "x")],
)  # fmt: skip
def test_a_command_of_a_broken_plugin_is_one_line(broken, bench, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    answer = bench(*words, *(("--workspace", OLD) if words[0] in ("knn", "figures") else ()))
    assert answer.code == 2
    *taken, refusal = answer.err.splitlines()
    assert all("@" in line for line in taken)  # which runs the command would have measured
    assert "no_such_library" in refusal


def test_a_missing_module_is_broken_too(install):
    install("stranger", [("eval", "strange", "stranger.nowhere:Thing")])
    assert "strange" not in catalogue.find_all("eval")
    assert "cannot be imported" in catalogue.summary("eval", "strange")


def test_a_class_that_keeps_no_contract_leaves_the_other_protocols(install, capsys):
    install("stranger", [("eval", "strange", "stranger:Nameless")], NO_PROTOCOL)
    assert "linear/logreg" in protocols()
    assert "protocol" in capsys.readouterr().err


def test_a_name_that_is_ours_stays_ours(install, capsys):
    install("stranger", [("eval", "knn", "stranger:Nameless")], NO_PROTOCOL)
    assert catalogue.evaluation("knn").protocol.startswith("knn/")
    said = capsys.readouterr().err
    for part in ("'knn'", "package stranger", "package ssl-bench"):
        assert part in said


def test_of_two_strangers_the_order_of_the_path_does_not_choose(install, capsys):
    for package in ("stranger_b", "stranger_a"):
        install(package, [("data", "photos", f"{package[-1]}:Photos")])
    assert catalogue._found("data")["photos"].value == "a:Photos"
    assert "stranger_b" in capsys.readouterr().err


def test_a_protocol_that_is_ours_stays_ours(install, capsys):
    code = "from eval.knn import KNN\n\nclass Same(KNN):\n    pass\n"
    install("stranger", [("eval", "aaa", "stranger:Same")], code)
    assert protocols()["knn/dinov2"].command == "bench knn"
    assert "knn/dinov2" in capsys.readouterr().err


# ---- what a class says, without importing it

SAID = ("version", "baseline", "fit", "fill")
CLASSES = """
class Pretext:
    baseline = None

class Older(Pretext):
    version = int("3")

class Stated(Pretext):
    version, baseline = 1, 2
    version = 4
    baseline: int = 5

    def fit(self): ...

class Thing(Older):
    pass
"""


@pytest.mark.parametrize("name", catalogue.names("pretext"))
def test_the_file_says_what_the_class_says(name):
    body = catalogue._class_body(catalogue._found("pretext")[name])
    kind = catalogue.pretext(name)
    assert body
    for attribute in SAID:
        said = getattr(kind, attribute, None)
        assert body.get(attribute) == (True if callable(said) else said)


HEIRS = """
from stranger_parent import Stated as Parent

class Last(Parent):
    version = 6
"""


def test_what_an_imported_parent_states_is_read_too(install):
    install("stranger_parent", [], CLASSES)
    install("stranger", [("pretext", "last", "stranger:Last")], HEIRS)
    found = [catalogue.said_of("pretext", "last", attribute) for attribute in SAID]
    assert found == [6, 5, True, None]
    assert not {"stranger", "stranger_parent"} & set(sys.modules)


def test_what_is_stated_is_read_and_all_else_is_asked(install):
    entries = [
        ("pretext", name.lower(), f"stranger:{name}") for name in ("Stated", "Thing", "Older")
    ]
    install("stranger", entries, CLASSES)
    found = [catalogue.said_of("pretext", "stated", attribute) for attribute in SAID]
    assert found == [4, 5, True, None]
    assert "stranger" not in sys.modules
    assert catalogue.said_of("pretext", "older", "baseline") is None
    assert "stranger" not in sys.modules
    assert catalogue.said_of("pretext", "older", "version") == 3  # no literal
    assert catalogue.said_of("pretext", "thing", "version") == 3  # of its parent
    assert catalogue.said_of("pretext", "nobody's", "version") is None
