"""`bench data`: sets of images."""

from typing import Any

import click

from ssl_bench import catalogue
from ssl_bench.cli.groups import StrictCommand, SuggestingGroup
from ssl_bench.errors import BenchError


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
    from ssl_bench.data.survey import image_counts

    dataset = get(name)
    click.echo(f"{name} is in {dataset.where}")
    for line in image_counts(dataset):
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
    """Read all of a set, such as voc:PATH: print what is in it, and all that is wrong with it.

    Of a folder that it does not understand it says which layouts come near, and what is missing.
    """
    from ssl_bench.data.survey import check

    understood = False
    try:
        for line in check(catalogue.dataset(name), task, workers):
            understood = True
            click.echo(line)
    except BenchError:
        if not understood:
            from ssl_bench.data.guess import nearby

            for line in nearby(name):
                click.echo(line, err=True)
        raise


@data.command("guess", cls=StrictCommand)
@click.argument("path")
def data_guess(path: str) -> None:
    """Say what a folder or a file could be given as, such as coco:PATH, and what is near."""
    from ssl_bench.data.guess import proposals

    for line in proposals(path):
        click.echo(line)
