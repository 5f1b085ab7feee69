"""Commands that look: pictures, networks, speed."""

import json
from pathlib import Path
from typing import Any

import click

from ssl_bench import catalogue
from ssl_bench.cli.groups import CatalogueGroup, StrictCommand, SuggestingGroup
from ssl_bench.cli.options import (
    OutFolder,
    config_options,
    data_part_option,
    family_option,
    method_part_option,
    protocol_part_option,
    refused,
    validated,
    workspace_option,
)
from ssl_bench.errors import UsageError, counted, plain


# ---- pictures
@click.command(cls=StrictCommand)
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--encoder",
              help="METHOD or METHOD@KEY of a pretext that fills holes; default: the newest "
              "run of one.")  # fmt: skip
@click.option("--mask", default="central", show_default=True,
              help="central, or a FILE that is white where the image is missing.")  # fmt: skip
@click.option("--out", type=OutFolder(), required=True,
              help="Folder for the filled images, as PNG.")  # fmt: skip
@workspace_option
def inpaint(
    images: tuple[Path, ...], encoder: str | None, mask: str, out: Path, workspace: Path
) -> int:
    """Fill holes in images of any size; folders are taken whole."""
    from ssl_bench.evaluation.defaults import newest_that_inpaints, opened
    from ssl_bench.pictures.inpaint import inpaint as job
    from ssl_bench.pictures.inpaint import photographs_in
    from ssl_bench.progress import progress, say

    sources = photographs_in(images)
    reference = opened(encoder or newest_that_inpaints(workspace), workspace)
    failed = 0
    for done in progress(job(sources, reference, mask, out), "images", len(sources)):
        if done.target:
            click.echo(plain(f"{done.target}: {done.outcome}"))
        else:
            failed += 1
            say(f"bench: {done.outcome}")
    if failed:
        say(f"not filled: {failed} of {counted(len(sources), 'image')}")
    return 1 if failed else 0


@click.command(cls=StrictCommand)
@click.argument("figures", nargs=-1, metavar="[FIGURE]...")
@click.option("--encoder", "encoders", multiple=True,
              help="METHOD, METHOD@KEY, a weights file, timm:NAME or torchvision:NAME; several "
              "times; default: the newest run of every method, pretrained alike.")  # fmt: skip
@click.option("--data", default="scenes", show_default=True,
              help="Images that are shown; neighbours are sought in its train split.")  # fmt: skip
@click.option("--count", type=click.IntRange(1, 20), default=6, show_default=True,
              help="Images in a figure.")  # fmt: skip
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True,
              help="Seed of which images, and of masks.")  # fmt: skip
@click.option("--workers", type=click.IntRange(0), default=2, show_default=True,
              help="Processes that decode images.")  # fmt: skip
@click.option("--out", type=OutFolder(), required=True,
              help="Folder for NAME.png and NAME.pdf.")  # fmt: skip
@workspace_option
def figures(
    figures: tuple[str, ...],
    encoders: tuple[str, ...],
    data: str,
    count: int,
    seed: int,
    workers: int,
    out: Path,
    workspace: Path,
) -> None:
    """Draw the paper's pictures from one's own runs; no FIGURE named: all that can be drawn."""
    from ssl_bench.evaluation.defaults import default_encoders, opened
    from ssl_bench.pictures.gallery import Gallery
    from ssl_bench.progress import say

    named = {name: catalogue.load("figure", name) for name in figures}
    makers = named or catalogue.find_all("figure", catalogue.names("figure"))
    known = any(workspace.glob("pretrain/*/record.json"))
    asked = encoders or (default_encoders(workspace) if known else ())
    references = [opened(text, workspace) for text in asked]
    gallery = Gallery(references, catalogue.dataset(data), count, seed, workers)
    out.mkdir(parents=True, exist_ok=True)
    for name, maker in makers.items():
        try:
            paths = maker(gallery).draw(out / name)
        except UsageError as error:
            if figures:
                raise UsageError(f"{name}: {error}") from error
            say(f"{name} is left out: {error}")
        else:
            click.echo(f"{name}: {', '.join(map(str, paths))}")


@click.group(cls=SuggestingGroup)
def plot() -> None:
    """Draw what was measured, from records only: PNG, SVG and PDF."""


plot_out_option = click.option(
    "--out", type=OutFolder(), required=True,
    help="Folder for NAME.png, NAME.svg and NAME.pdf.",
)  # fmt: skip


@plot.command(cls=StrictCommand)
@plot_out_option
@workspace_option
@data_part_option
@protocol_part_option
@method_part_option
def course(out: Path, workspace: Path, methods: tuple[str, ...], **part: tuple[str, ...]) -> None:
    """Draw accuracy over steps, by layer, of encoders kept on the way (`--keep-at`)."""
    from ssl_bench.pictures.course import draw_courses
    from ssl_bench.records.workspace import read_records
    from ssl_bench.tables.course import courses_of
    from ssl_bench.tables.part import part_of
    from ssl_bench.tables.table import Table

    table = part_of(Table.of(read_records(workspace, "evaluation"), workspace), **part)
    courses = courses_of(table, methods)
    out.mkdir(parents=True, exist_ok=True)
    click.echo(f"course: {', '.join(map(str, draw_courses(table, courses, out / 'course')))}")


def _plot_of_table(name: str, text: str) -> click.Command:
    """The command that draws a table, or a part of it, in one way."""

    def command(out: Path, workspace: Path, suite: str | None, **part: tuple[str, ...]) -> None:
        from ssl_bench.cli.read import table_of
        from ssl_bench.pictures.page import PLOTS
        from ssl_bench.tables.part import part_of

        _written(name, PLOTS[name].draw(part_of(table_of(workspace, suite), **part)), out)

    for option in (method_part_option, protocol_part_option, data_part_option, family_option,
                   workspace_option, plot_out_option):  # fmt: skip
        command = option(command)
    return click.command(name, cls=StrictCommand, help=text)(command)


plot.add_command(_plot_of_table("rows", "Draw the rows of each headline column with intervals."))
plot.add_command(_plot_of_table("layers", "Draw a number by layer, a line a row with its band."))
plot.add_command(
    _plot_of_table("differences", "Draw the declared differences with intervals, and zero.")
)


@plot.command(cls=StrictCommand)
@plot_out_option
@workspace_option
def training(out: Path, workspace: Path) -> None:
    """Draw what each training of a workspace logged, finished or not, by step."""
    from ssl_bench.pictures.training import draw_training, logs_of

    _written("training", draw_training(logs_of(workspace)), out)


def _written(name: str, figure: Any, out: Path) -> None:
    from ssl_bench.pictures.style import save_for_print

    out.mkdir(parents=True, exist_ok=True)
    click.echo(f"{name}: {', '.join(map(str, save_for_print(figure, out / name)))}")


# ---- networks
@click.command(cls=StrictCommand)
@click.option("--encoder", "encoders", multiple=True,
              help="As evaluations take it; several times; default: the newest run of every "
              "method, pretrained alike.")  # fmt: skip
@click.option("--data", default="scenes", show_default=True, help="Images: their test split.")
@click.option("--images", type=click.IntRange(2), default=1000, show_default=True,
              help="Number of them, the first ones; all where there are fewer.")  # fmt: skip
@click.option("--workers", type=click.IntRange(0), default=2, show_default=True,
              help="Processes that decode images.")  # fmt: skip
@workspace_option
def diagnose(
    encoders: tuple[str, ...], data: str, images: int, workers: int, workspace: Path
) -> None:
    """Print each layer's effective rank, dead units, and how far its weights moved."""
    from ssl_bench.data.store.squares import open_store
    from ssl_bench.errors import DataError
    from ssl_bench.evaluation.defaults import default_encoders, opened
    from ssl_bench.evaluation.diagnostics import diagnose as job
    from ssl_bench.evaluation.diagnostics import lines_of, starting_encoder
    from ssl_bench.progress import say

    for text in encoders or default_encoders(workspace):
        reference = opened(text, workspace, run_file=True)
        reference.check_weights()
        spec, start = reference.spec, None
        try:
            start = starting_encoder(reference.run, spec, workspace) if reference.run else None
        except (DataError, UsageError) as error:
            say(f"warning: {error}")
        store = open_store(
            catalogue.dataset(data), "test", spec.image_size, workers=workers, labelled=False
        )
        found = job(reference.encoder, spec, store, images, start)
        click.echo(plain(f"{text}, {counted(min(images, len(store)), 'image')} of {data}"))
        for line in lines_of(found):
            click.echo(line)


# ---- speed
def perf_command(name: str) -> click.Command:
    measurement = catalogue.load("perf", name)

    def command(**options: Any) -> None:
        for line in measurement(validated(measurement.Config, options)).lines():
            click.echo(line)

    made = click.command(name, cls=StrictCommand, help=catalogue.summary("perf", name))(command)
    made.params = [*config_options(measurement.Config)]
    return made


@click.group(cls=CatalogueGroup, registry="perf", build=perf_command)
def perf() -> None:
    """Measure speed and memory: ratios within one run, on this machine."""


@click.command(cls=StrictCommand)
@click.argument("name")
@click.option("--image-size", type=int, help="Side of the input, px. [default: the method's]")
@click.option(
    "--width", type=float, help="Factor on an own network's channel counts. [default: 1.0]"
)
@click.option("--norm", type=click.Choice(["own", "batch"]), default="own", show_default=True,
              help="Normalisation in alexnet: its own, LRN, or batch.")  # fmt: skip
@click.option("--stem", type=click.Choice(["own", "small", "sobel"]), default="own",
              show_default=True,
              help="The beginning: own, small (a ResNet), sobel (alexnet).")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def inspect(
    name: str, image_size: int | None, width: float | None, norm: Any, stem: Any, as_json: bool
) -> None:
    """Print layers, output shapes and parameters by part of a pretext or an encoder."""
    from pydantic import ValidationError

    from ssl_bench.cli.inspect import describe, inspect_network

    try:
        found = inspect_network(name, image_size=image_size, width=width, norm=norm, stem=stem)
    except ValidationError as error:
        raise refused(error) from error
    click.echo(json.dumps(found, indent=2) if as_json else describe(found))
