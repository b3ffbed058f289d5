"""Embeddings as a Parquet file, for data frames and databases.

pyarrow is imported where it is used: no other file of the package needs it.
"""

import itertools
import json
from collections.abc import Iterable

import numpy as np

FACTS = b"moco_tf"  # key of the schema's metadata


def write(path: str, parts: Iterable[dict[str, np.ndarray]], facts: dict | None):
    """Writes a file with one row an image, a row group for each part.

    Args:
        path: local file.
        parts: dicts of `name` (text), `ok` (bool) and float32 NxC arrays, which become lists of
            fixed length. Bytes of names that are no UTF-8 are written as \\udcXX.
        facts: JSON-ready, for the metadata of the schema; None for none.

    Example:
        >>> part = {"name": np.array(["a.png"]), "ok": np.array([True])}
        >>> write("x.parquet", [part | {"feature": np.float32([[1, 2]])}], facts=None)
        >>> read("x.parquet")[0]["feature"].tolist()
        [[1.0, 2.0]]
    """
    import pyarrow.parquet

    tables = (_table(part, facts) for part in parts)
    first = next(tables)
    with pyarrow.parquet.ParquetWriter(path, first.schema) as writer:
        for table in itertools.chain([first], tables):
            writer.write_table(table)


def read(path: str) -> tuple[dict[str, np.ndarray], dict]:
    """The columns of a file as arrays, and its facts, {} if it has none.

    Raises:
        OSError, ValueError: for another file.
    """
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(path)
    columns = {name: _array(table[name].combine_chunks()) for name in table.column_names}
    return columns, _facts(table.schema)


def read_facts(path: str) -> dict:
    """The facts of a file, {} if it has none; the errors of `read`."""
    import pyarrow.parquet

    return _facts(pyarrow.parquet.read_schema(path))


def _facts(schema):
    return json.loads((schema.metadata or {}).get(FACTS, b"{}"))


def _table(part, facts):
    import pyarrow

    metadata = None if facts is None else {FACTS: json.dumps(facts)}
    return pyarrow.table({n: _column(array) for n, array in part.items()}, metadata=metadata)


def _column(array):
    import pyarrow

    if array.dtype.kind == "U":
        texts = [text.encode(errors="backslashreplace").decode() for text in array.tolist()]
        return pyarrow.array(texts, pyarrow.string())
    if array.ndim == 1:
        return pyarrow.array(array)
    return pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(array.ravel()), array.shape[1])


def _array(column):
    import pyarrow

    if isinstance(column, pyarrow.FixedSizeListArray):
        return column.flatten().to_numpy().reshape(len(column), -1)
    if pyarrow.types.is_string(column.type):
        return np.array(column.to_pylist())
    return column.to_numpy(zero_copy_only=False)
