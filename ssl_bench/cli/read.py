"""Commands that read records: tables, comparisons, reports, verification."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ssl_bench.cli.groups import StrictCommand, SuggestingGroup
from ssl_bench.cli.options import (
    OutFolder,
    computing_options,
    data_part_option,
    family_option,
    method_part_option,
    out_option,
    protocol_part_option,
    runtime_of,
    workspace_option,
)
from ssl_bench.errors import UsageError, counted, plain

if TYPE_CHECKING:
    from ssl_bench.tables.table import Table

SUFFIXES = {"markdown": "md", "csv": "csv", "latex": "tex"}  # of the files of a table, by format


# ---- records → tables
@click.command(cls=StrictCommand)
@workspace_option
def runs(workspace: Path) -> None:
    """List the finished runs of a workspace, oldest first."""
    from ssl_bench.cli.runs import run_lines

    for line in run_lines(workspace):
        click.echo(plain(line))


@click.command(cls=StrictCommand)
@workspace_option
@family_option
@click.option(
    "--format",
    "form",
    type=click.Choice([*SUFFIXES]),
    default="markdown",
    show_default=True,
    help="What the table is written as.",
)
@click.option("--published-order", is_flag=True,
              help="Print the published order of methods beside the measured one, behind the table."
              )  # fmt: skip
@click.option("--maximum", is_flag=True,
              help="Print what the best of a training's kept steps gives over its last, behind the "
              "table.")  # fmt: skip
@click.option("--against", multiple=True, metavar="TEXT",
              help="Print each row's differences from this method, or row as the table calls it, "
              "in place of those from the baselines; several times.")  # fmt: skip
@out_option
@data_part_option
@protocol_part_option
@method_part_option
def table(
    workspace: Path, suite: str | None, form: str, published_order: bool, maximum: bool,
    against: tuple[str, ...], out: Path | None, **part: tuple[str, ...],
) -> None:  # fmt: skip
    """Print the table of all evaluations in a workspace."""
    from ssl_bench.tables.forms import FORMS, maxima_markdown, orders_markdown, write_table
    from ssl_bench.tables.part import beside, part_of

    behind = {"--published-order": published_order, "--maximum": maximum, "--against": against}
    for name, asked in behind.items():
        if asked and form != "markdown":
            raise UsageError(f"{name} is printed behind a Markdown table: leave out --format")
    if part["methods"]:
        part["methods"] += against
    made = beside(part_of(table_of(workspace, suite), **part), against)
    click.echo(FORMS[SUFFIXES[form]](made))
    if published_order:
        click.echo(f"\n{orders_markdown(made)}")
    if maximum:
        click.echo(f"\n{maxima_markdown(made)}")
    if out:
        for path in write_table(made, out):
            click.echo(f"wrote {path}", err=True)


def table_of(workspace: Path, suite: str | None) -> "Table":
    """All evaluations of a workspace; what is tested is as a suite, or else family.json, says."""
    from ssl_bench.evaluation.suite_file import read_suite
    from ssl_bench.records.workspace import read_records
    from ssl_bench.tables.family import family_of
    from ssl_bench.tables.table import Table

    records = read_records(workspace, "evaluation")
    if not records:
        raise UsageError(f"no evaluation in {workspace}: `bench linear-probe` makes one")
    return Table.of(records, workspace, family_of(read_suite(suite)) if suite else None)


@click.command(cls=StrictCommand)
@click.option("--out", type=click.Path(path_type=Path), default="report.html", show_default=True,
              help="The page.")  # fmt: skip
@click.option("--title", default="ssl-bench", show_default=True, help="What stands above it.")
@workspace_option
@family_option
@data_part_option
@protocol_part_option
@method_part_option
def report(
    out: Path, title: str, workspace: Path, suite: str | None, **part: tuple[str, ...]
) -> None:
    """Write one HTML page: what the tests say, figures, tables, and the record of each number."""
    from ssl_bench.pictures.page import page_figures
    from ssl_bench.tables.part import part_of
    from ssl_bench.tables.report import write_report

    made = part_of(table_of(workspace, suite), **part)
    write_report(made, workspace, out, title, page_figures(made, workspace))
    click.echo(f"wrote {out}", err=True)


@click.command(cls=StrictCommand)
@click.argument("path", type=click.Path(path_type=Path, exists=True))
@click.option("--out", type=OutFolder(), default="site", show_default=True,
              help="Folder for index.html and the other pages.")  # fmt: skip
def site(path: Path, out: Path) -> None:
    """Write the reports of all workspaces below PATH as one site with leaderboards."""
    from ssl_bench.pictures.page import page_figures
    from ssl_bench.records.workspace import workspaces_below
    from ssl_bench.tables.site import write_site

    found = workspaces_below(path)
    if not found:
        raise UsageError(f"{path} holds no record")
    named = [(str(each.relative_to(path)) if each != path else path.resolve().name, each)
             for each in sorted(found)]  # fmt: skip
    paths = write_site(named, out, page_figures, lambda workspace: table_of(workspace, None))
    click.echo(f"wrote {paths[0]} and {len(paths) - 1} pages beside it", err=True)


@click.command(cls=StrictCommand)
@click.argument("a")
@click.argument("b")
@workspace_option
@family_option
@data_part_option
@protocol_part_option
def compare(a: str, b: str, workspace: Path, suite: str | None, **part: tuple[str, ...]) -> None:
    """Compare two methods, A − B, wherever both were measured alike.

    A and B are METHOD (all its seeds), METHOD@KEY (one run), or a row as the table calls it.
    """
    from ssl_bench.tables.comparison import compare as job
    from ssl_bench.tables.comparison import comparison_text, with_pretraining

    made = table_of(workspace, suite)
    compared = job(made, a, b, **part)
    mine, theirs = with_pretraining(made, a, b)
    click.echo(comparison_text(mine, theirs, compared))


@click.command(cls=StrictCommand)
@click.argument("key")
@workspace_option
def show(key: str, workspace: Path) -> None:
    """Print all that made a number, and the command that makes it again."""
    from ssl_bench.records.command import lines_of, record_of

    for line in lines_of(record_of(workspace, key), workspace):
        click.echo(line)


@click.command(cls=StrictCommand)
@click.argument("key")
@click.option("--data", multiple=True,
              help="Where the images are, if the workspace does not remember it; once for each set."
              )  # fmt: skip
@computing_options
def rerun(key: str, data: tuple[str, ...], workspace: Path, **options: Any) -> int:
    """Make a run again, apart, and compare: bit for bit on a CPU."""
    from ssl_bench.records.command import record_of
    from ssl_bench.trust.rerun import data_of
    from ssl_bench.trust.rerun import rerun as job

    record = record_of(workspace, key)
    found = job(
        record, workspace, data or data_of(record, workspace), runtime_of(**options),
        skip_bad_images=options["skip_bad_images"],
    )  # fmt: skip
    for line in found:
        click.echo(f"{record.key[:12]}: {line}")
    if not found:
        click.echo(f"{record.key[:12]}: the same, bit for bit")
    return 1 if found else 0


@click.command(cls=StrictCommand)
@click.argument("path", type=click.Path(path_type=Path, exists=True))
def verify(path: Path) -> int:
    """Compute every metric, digest and table below PATH again; exit 0 if all agree."""
    from ssl_bench.trust.verify import disagreements, workspaces_in

    found = workspaces = 0
    for workspace in workspaces_in(path):
        workspaces += 1
        for line in disagreements(workspace):
            found += 1
            click.echo(plain(line))
    click.echo(f"{counted(workspaces, 'workspace')}, {counted(found, 'disagreement')}", err=True)
    return 1 if found else 0


# ---- protocols
@click.group(cls=SuggestingGroup, invoke_without_command=True)
@click.pass_context
def protocols(context: click.Context) -> None:
    """List the protocols with their sources, or `show` one."""
    if context.invoked_subcommand is None:
        from ssl_bench.records.protocols import protocols as known

        for one in known().values():
            click.echo(f"{one.printed:26} {one.digest}  {one.command}")
            click.echo(f"{'':26} {one.source}")


@protocols.command("show", cls=StrictCommand)
@click.argument("name")
def protocols_show(name: str) -> None:
    """Print a protocol's canonical settings."""
    from ssl_bench.records.protocols import protocol

    found = protocol(name)
    click.echo(f"{found.printed}, {found.digest}: {found.command}")
    click.echo(f"source: {found.source}")
    click.echo(f"metric: {found.metric}")
    for setting, value in found.settings.items():
        text = ",".join(map(str, value)) if isinstance(value, tuple) else value
        click.echo(f"  --{setting.replace('_', '-')} {text}")
