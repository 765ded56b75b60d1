"""Measured tables in the documents, between `<!-- name -->` and `<!-- end -->`."""

import re
from collections.abc import Mapping
from pathlib import Path


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
