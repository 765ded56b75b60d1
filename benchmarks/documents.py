"""Measured tables in the documents, between `<!-- name -->` and `<!-- end -->`."""

import re
from collections.abc import Mapping
from pathlib import Path


def merge_rows(document: Path, name: str, lines: list[str]) -> str:
    """Return a table, head in two lines, with the rows of the document's that it does not have.

    Rows are known by their first two cells. Those of a table with another head are dropped.
    """
    place = rf"<!-- {re.escape(name)} -->\n\n(.*?)\n\n<!-- end -->"
    found = re.search(place, document.read_text(), flags=re.DOTALL)
    before = found[1].split("\n") if found else []
    kept = before[2:] if before[:2] == lines[:2] else []
    rows = {tuple(line.split("|")[1:3]): line for line in [*kept, *lines[2:]]}
    return "\n".join([*lines[:2], *rows.values()])


def write_tables(document: Path, tables: Mapping[str, str]) -> None:
    """Put every table into its place and leave all else as it is.

    Raises:
        ValueError: if the document has no place, or several, for one of them.
    """
    text = document.read_text()
    for name, table in tables.items():
        place = rf"(<!-- {re.escape(name)} -->\n).*?(<!-- end -->)"
        text, count = re.subn(
            place, lambda m, t=table: f"{m[1]}\n{t}\n\n{m[2]}", text, flags=re.DOTALL
        )
        if count != 1:
            raise ValueError(
                f"a document must have one place for each table, but {document.name} has {count} "
                f"for {name!r}. Add the lines `<!-- {name} -->` and `<!-- end -->`."
            )
    document.write_text(text)
