"""Protocols: one for each evaluation, with source, frozen, under a digest of all that makes it."""

import json
import re
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import pytest

from helpers.refusals import fails
from ssl_bench import catalogue
from ssl_bench.errors import UsageError
from ssl_bench.records.protocols import protocol, protocols

HARNESSES = {name: catalogue.evaluation(name) for name in catalogue.names("eval")}
NAMES = sorted(protocols())


def settings_of(name: str) -> dict[str, Any]:
    """The defaults of a harness, by their options' names, in JSON's types."""
    (harness,) = (h for h in HARNESSES.values() if h.protocol == protocols()[name].printed)
    fields = harness.Config.model_fields.items()
    left_out = {k for k, f in fields if f.exclude or (f.exclude_if and f.exclude_if(f.default))}
    defaults = {k: f.default for k, f in fields if k not in left_out}
    return json.loads(json.dumps({k: v for k, v in defaults.items() if k != "seed"}))


# ---- the list
def test_every_evaluation_has_one_protocol_with_a_version():
    found = sorted(p.printed for p in protocols().values())
    assert found == sorted(harness.protocol for harness in HARNESSES.values())
    assert all(re.fullmatch(r"[a-z-]+/[a-z0-9-]+@[1-9]\d*", name) for name in found)


def test_the_list_names_each_protocol_once_with_digest_command_and_source(bench):
    lines = bench("protocols").out.splitlines()
    entries = list(zip(lines[::2], lines[1::2], strict=True))
    shown = {first.split()[0]: (first.split(maxsplit=2)[1:], source.strip())
             for first, source in entries}  # fmt: skip
    assert len(shown) == len(entries)
    assert shown == {
        one.printed: ([one.digest, one.command], one.source) for one in protocols().values()
    }


def test_every_source_is_stated():
    for name, one in protocols().items():
        assert one.source not in ("", "not stated"), name


@pytest.mark.parametrize("name", NAMES)
def test_a_protocols_command_is_the_one_that_takes_its_settings(bench, name):
    """`--help` of the command has an option for each; `--protocol` chooses among its variants."""
    one = protocols()[name]
    words = one.command.split()
    assert words[0] == "bench"
    known = bench(*words[1:], "--help").out
    for setting in one.settings:
        assert f"--{setting.replace('_', '-')} " in known
    if "--protocol" in words:
        assert f"{words[-1]}: {one.printed}" in re.sub(r"\s+", " ", known)


@pytest.mark.parametrize("name", NAMES)
def test_show_prints_every_setting_with_its_canonical_value(bench, name):
    one = protocols()[name]
    head, source, metric, *lines = bench("protocols", "show", name).out.splitlines()
    assert head == f"{one.printed}, {one.digest}: {one.command}"
    assert (source, metric) == (f"source: {one.source}", f"metric: {one.metric}")
    shown = dict(line.strip().removeprefix("--").split(" ", 1) for line in lines)
    expected = {
        setting.replace("_", "-"): ",".join(map(str, v)) if isinstance(v, list) else str(v)
        for setting, v in settings_of(name).items()
    }
    assert shown == expected


def test_show_takes_the_version_too(bench):
    plain, versioned = (bench("protocols", "show", name) for name in ("knn/vissl", "knn/vissl@1"))
    assert (plain.code, plain.out) == (0, versioned.out)


# ---- the object
@pytest.mark.parametrize("name", NAMES)
def test_a_protocols_settings_are_the_harness_defaults(name):
    found = dict(protocols()[name].settings)
    assert json.loads(json.dumps(found)) == settings_of(name)


def test_the_settings_and_the_list_are_frozen():
    known: Any = protocols()
    with pytest.raises(TypeError):
        known["knn/vissl"].settings["k"] = [1]
    with pytest.raises(TypeError):
        known["knn/vissl"] = known["knn/dinov2"]


@pytest.mark.parametrize("name", NAMES)
def test_no_setting_can_be_changed_in_place(name):
    """A list could be: what has a hash cannot."""
    for value in protocols()[name].settings.values():
        hash(value)


@pytest.mark.parametrize("name", NAMES)
def test_the_canonical_settings_deviate_in_nothing(name):
    """Neither as defaults nor as what a record holds of them."""
    (harness,) = (h for h in HARNESSES.values() if h.protocol == protocols()[name].printed)
    assert list(harness.Config().deviations()) == []
    again = harness.Config.model_validate(protocols()[name].settings)
    assert list(again.deviations()) == []


# ---- the digest
@pytest.mark.parametrize("name", NAMES)
def test_the_digest_changes_with_each_setting(name):
    one = protocols()[name]
    digests = [one.digest]
    for setting, value in one.settings.items():
        other = [*value, 7] if isinstance(value, list | tuple) else f"{value}0"
        digests.append(replace(one, settings={**one.settings, setting: other}).digest)
    digests.append(replace(one, settings={**one.settings, "more": 1}).digest)
    assert len(set(digests)) == len(digests) > 2


def test_the_digest_changes_with_name_version_and_metric_and_not_with_how_it_is_called():
    one = protocols()["knn/vissl"]
    others = [
        replace(one, name="knn/other"), replace(one, version=2), replace(one, metric="map"),
    ]  # fmt: skip
    assert len({one.digest, *(other.digest for other in others)}) == 4
    assert replace(one, command="bench other", source="elsewhere").digest == one.digest


def test_the_digest_does_not_depend_on_the_order_of_settings():
    one = protocols()["detection/fast-rcnn"]
    turned = MappingProxyType(dict(sorted(one.settings.items(), reverse=True)))
    assert list(turned) != list(one.settings)
    assert replace(one, settings=turned).digest == one.digest


def test_all_digests_differ_and_are_12_hexadecimal_digits():
    digests = [one.digest for one in protocols().values()]
    assert len(set(digests)) == len(digests)
    assert all(re.fullmatch("[0-9a-f]{12}", digest) for digest in digests)


# ---- names
def test_a_protocol_is_found_with_its_version_or_without():
    assert protocol("knn/vissl") is protocol("knn/vissl@1") is protocols()["knn/vissl"]


def test_an_unknown_name_has_near_ones(bench):
    fails(bench("protocols", "show", "knn/visl"), 2, "unknown protocol 'knn/visl'", "knn/vissl@1")
    fails(bench("protocols", "shw"), 2, "unknown command 'shw'", "did you mean show")


@pytest.mark.parametrize("version", ["2", "0", "x", "01"])
def test_another_version_is_not_installed(version):
    with pytest.raises(UsageError, match=f"knn/vissl@{version} is not installed.*knn/vissl@1"):
        protocol(f"knn/vissl@{version}")
