"""The site: `make docs` builds it into build/docs, strictly: a warning is an error.

The pages are read on GitHub, too, so their links are relative; those that leave `docs` lead to the
page that stands for them here (`STANDS_FOR`), and those to a file of the source to the file itself.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import click
from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.application import Sphinx

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

project, author, copyright = "ssl-bench", "The ssl-bench authors", "The ssl-bench authors"
extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["example"]
html_theme, html_title = "furo", "ssl-bench"
html_show_sphinx = html_copy_source = False
myst_heading_anchors = 4  # links to headings as GitHub makes them
default_role = "code"  # docstrings have `names` between single backticks
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
STANDS_FOR = {
    "../results/README.md": "results.md",
    "../CONTRIBUTING.md": "contributing.md",
    "(example)": "(example/pyproject.toml)",
}


class BenchHelp(Directive):
    """`--help` of every command of `bench`, or of the group that is named, a section each."""

    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        from ssl_bench.cli.main import cli

        top = click.Context(cli, info_name="bench")
        if not self.arguments:
            return [*self._sections(top, cli)]
        group = cli.get_command(top, self.arguments[0])
        assert isinstance(group, click.Group)
        return [*self._sections(click.Context(group, top, group.name), group)]

    def _sections(self, above: click.Context, group: click.Group) -> Iterator[nodes.Node]:
        for name in group.list_commands(above):
            command = group.get_command(above, name)
            assert command is not None
            context = click.Context(command, above, name, max_content_width=88, terminal_width=88)
            title = context.command_path
            section = nodes.section(ids=[nodes.make_id(title)], names=[title])
            section += nodes.title(title, title)
            section += nodes.literal_block(text=command.get_help(context), language="text")
            yield section


def led_here(_app: Sphinx, name: str, source: list[str]) -> None:
    """Links out of `docs` as the site has them; in `reference/` there are none."""
    for outside, inside in STANDS_FOR.items():
        source[0] = source[0].replace(outside, inside)
    if name in ("results", "contributing"):  # pages of other folders, included
        file = ROOT / {"results": "results/README.md", "contributing": "CONTRIBUTING.md"}[name]
        text = re.sub(r"\]\(\.\./docs/", "](", file.read_text(encoding="utf-8"))
        source[0] = re.sub(r"\[([^]]+)\]\((?!https?:|[\w-]+\.md)[^)]*\)", r"\1", text)


def setup(app: Sphinx) -> None:
    app.add_directive("bench-help", BenchHelp)
    app.connect("source-read", led_here)
