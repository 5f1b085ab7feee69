"""`bench data`: sets of images."""

from typing import TYPE_CHECKING, Any

import click

from ssl_bench import catalogue
from ssl_bench.cli.groups import StrictCommand, SuggestingGroup

if TYPE_CHECKING:
    pass


# ---- data
@click.group(cls=SuggestingGroup)
def data() -> None:
    """List, fetch and check sets of images."""


@data.command("list", cls=StrictCommand)
def data_list() -> None:
    """List all sets: where they are, and how many images they have for each task."""
    from ssl_bench.data.survey import listing

    for line in listing():
        click.echo(line)


@data.command("get", cls=StrictCommand)
@click.argument("name")
def data_get(name: str) -> None:
    """Download and unpack a public set, such as voc07 or cifar10: `bench data list` names all."""
    from ssl_bench.data.download import get
    from ssl_bench.data.survey import counted

    dataset = get(name)
    click.echo(f"{name} is in {dataset.where}")
    for line in counted(dataset):
        click.echo(f"  {line}")


@data.command("check", cls=StrictCommand)
@click.argument("name")
@click.option(
    "--task",
    type=click.Choice(["classification", "detection", "segmentation"]),
    help="What to check it for. [default: all that it has]",
)
@click.option("--workers", type=click.IntRange(0), default=2, show_default=True,
              help="Processes that read images.")  # fmt: skip
def data_check(name: str, task: Any, workers: int) -> None:
    """Read all of a set, such as voc:PATH: print what is in it, and all that is wrong with it."""
    from ssl_bench.data.survey import check

    for line in check(catalogue.dataset(name), task, workers):
        click.echo(line)
