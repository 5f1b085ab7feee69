"""Arrow and Parquet files, read where they lie by pyarrow (extra `hf`).

An Arrow file is mapped, not loaded. Of a Parquet file a row group is what can be read at once; the
last ones are kept, so that reading in order decodes each once.
"""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from ssl_bench.data.paths import stamp
from ssl_bench.errors import DataError, extra
from ssl_bench.files import refuse_pointer


def schema(file: Path) -> Any:
    """The columns and their types."""
    return _table(file, stamp(file)).schema if _is_arrow(file) else _parquet(file).schema_arrow


def features(schema: Any) -> dict[str, Any]:
    """What Hugging Face's datasets wrote of the columns; empty where others wrote the file."""
    try:
        described = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        found = described.get("info", {}).get("features") or {}
    except (ValueError, AttributeError):
        return {}
    return found if isinstance(found, dict) else {}


def holds_bytes(schema: Any, name: str) -> bool:
    """Whether a column has bytes, or structs with `bytes`, as an encoded image is kept."""
    kind = str(schema.field(name).type)
    plain_bytes = kind in ("binary", "large_binary")
    return plain_bytes or bool(re.match(r"struct<(.*, )?bytes: (large_)?binary", kind))


def holds_lists(schema: Any, name: str) -> bool:
    """Whether a column has a list in each row."""
    return str(schema.field(name).type).startswith(("list<", "large_list<", "fixed_size_list<"))


def count(file: Path) -> int:
    """How many rows there are."""
    return _table(file, stamp(file)).num_rows if _is_arrow(file) else sum(_groups(file))


def column(file: Path, name: str | None) -> list[Any]:
    """The values of a column; None of each row where there is no such column."""
    if name is None:
        return [None] * count(file)
    with _naming(file):
        if _is_arrow(file):
            return _table(file, stamp(file))[name].to_pylist()
        return _parquet(file).read(columns=[name])[name].to_pylist()


def cell(file: Path, name: str, row: int) -> Any:
    """One value."""
    with _naming(file):
        if _is_arrow(file):
            return _table(file, stamp(file))[name][row].as_py()
        for group, rows in enumerate(_groups(file)):
            if row < rows:
                return _group(file, stamp(file), group, name)[name][row].as_py()
            row -= rows
    raise DataError(f"{file} has fewer rows than it had: fetch it anew")


def _is_arrow(file: Path) -> bool:
    return file.suffix == ".arrow"


@contextmanager
def _naming(file: Path) -> Iterator[None]:
    """DataError with the file's name for what pyarrow raises."""
    try:
        yield
    # pyarrow's own errors are kinds of these.
    except (OSError, ValueError, LookupError, TypeError, NotImplementedError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{file} cannot be read ({reason}): fetch or save it anew") from error


@lru_cache(maxsize=256)
def _table(file: Path, _: object) -> Any:
    with extra("hf"):
        import pyarrow as pa  # pyright: ignore[reportMissingImports]
    refuse_pointer(file)
    with _naming(file):
        source = pa.memory_map(str(file))
        try:
            table = pa.ipc.open_stream(source).read_all()  # datasets' own
        except pa.ArrowInvalid:
            table = pa.ipc.open_file(source).read_all()  # Feather
        table.validate(full=True)  # a damaged offset would be followed to anywhere in memory
        return table


@lru_cache(maxsize=256)
def _opened(file: Path, _: object) -> Any:
    with extra("hf"):
        import pyarrow.parquet as pq  # pyright: ignore[reportMissingImports]
    refuse_pointer(file)
    with _naming(file):
        # Mapped: processes that are forked share an open file's place in it.
        return pq.ParquetFile(file, memory_map=True)


def _parquet(file: Path) -> Any:
    return _opened(file, stamp(file))


def _groups(file: Path) -> list[int]:
    """Rows of each row group."""
    found = _parquet(file).metadata
    return [found.row_group(group).num_rows for group in range(found.num_row_groups)]


@lru_cache(maxsize=2)
def _group(file: Path, _: object, group: int, name: str) -> Any:
    table = _parquet(file).read_row_group(group, columns=[name], use_threads=False)
    table.validate(full=True)
    return table
