"""Groups of commands: named without loading what they name, and a typo is answered."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import click

from ssl_bench import catalogue
from ssl_bench.errors import UsageError, unknown
from ssl_bench.progress import say


class Setting(click.Option):
    """An option that is a field of a `Config`: it determines a number."""


class StrictCommand(click.Command):
    """A command that drops no value: click takes the last of several without a word.

    A setting that takes one value is refused when it is given twice; of another option it is said
    that the last one counts.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        _, _, given = self.make_parser(ctx).parse_args(list(args))
        for param, count in Counter(given).items():
            if not isinstance(param, click.Option) or param.multiple or param.is_flag or count < 2:
                continue
            text = f"{param.opts[0]} is given {count} times"
            if isinstance(param, Setting):
                raise UsageError(f"{text}: it takes one value")
            say(f"{text}: the last one counts")
        return super().parse_args(ctx, args)


class SuggestingGroup(click.Group):
    """A group that proposes the nearest command for a typo."""

    kind = "command"

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            raise unknown(self.kind, args[0], self.list_commands(ctx))
        return super().resolve_command(ctx, args)


class CatalogueGroup(SuggestingGroup):
    """Commands made from entry points: named without loading them, loaded when one is chosen.

    `registry` is the kind of entry point, `build` makes the command of a name.
    """

    def __init__(
        self, registry: catalogue.Kind, build: Callable[[str], click.Command], **attributes: Any
    ) -> None:
        super().__init__(**attributes)
        self.registry: catalogue.Kind = registry
        self.kind, self.build = catalogue.NOUNS[registry], build

    def list_commands(self, ctx: click.Context) -> list[str]:
        return catalogue.names(self.registry)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return self.build(cmd_name) if cmd_name in catalogue.names(self.registry) else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section(f"{self.kind.capitalize()}s"):
            formatter.write_dl(
                [(n, catalogue.summary(self.registry, n)) for n in self.list_commands(ctx)]
            )
