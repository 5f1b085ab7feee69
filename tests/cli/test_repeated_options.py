"""An option given twice: all values of one that takes several, a refusal of one that takes one."""

from contextlib import suppress

import click
import pytest

from helpers.refusals import fails
from ssl_bench.cli.groups import Setting
from ssl_bench.cli.main import cli
from ssl_bench.cli.make import evaluation_command, evaluation_commands
from ssl_bench.errors import UsageError


def commands(group: click.Group, context: click.Context) -> list[click.Command]:
    """All of `bench`, those of groups too."""
    found = [group.get_command(context, name) for name in group.list_commands(context)]
    nested = [commands(each, context) for each in found if isinstance(each, click.Group)]
    return [c for c in found if c] + [command for each in nested for command in each]


@pytest.mark.parametrize(
    ("words", "name", "values"),
    [
        (["knn", "--k", "3", "--k", "5"], "k", (3, 5)),
        (["knn", "--k", "1,3", "--k", "5"], "k", (1, 3, 5)),
        (["low-shot", "--shots", "1,2,4"], "shots", (1, 2, 4)),
        (["svm", "--costs", "0.5", "--costs", "2"], "costs", (0.5, 2.0)),
        (["knn"], "k", None),
    ],
)
def test_several_values_may_be_given_one_by_one(words, name, values):
    command = evaluation_command(words[0])
    assert command.make_context("", words[1:]).params[name] == values


def test_no_option_is_dropped_without_a_word(capsys):
    """Of every command: a setting that is given twice is refused, of another option it is said."""
    context = click.Context(cli)
    every = commands(cli, context)
    assert {*evaluation_commands(), "table", "context-encoder"} <= {c.name for c in every}
    for command in every:
        for option in command.params:
            if not isinstance(option, click.Option) or option.multiple or option.is_flag:
                continue
            given, text = [option.opts[0], "1"] * 2, f"{option.opts[0]} is given 2 times"
            if isinstance(option, Setting):
                with pytest.raises(UsageError, match=f"^{text}: it takes one value"):
                    command.make_context("", given)
                continue
            with suppress(click.UsageError):  # arguments are missing, or 1 is no value of it
                command.make_context("", given)
            assert capsys.readouterr().err == f"{text}: the last one counts\n"


def test_the_refusal_is_one_line(bench):
    fails(bench("knn", "--seed", "1", "--seed", "2"), 2, "--seed is given 2 times")
