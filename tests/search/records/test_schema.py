"""The tables are documented column by column, with type, unit and meaning."""

from pathlib import Path

import pytest

from search.records.schema import KEYS, TABLES, columns
from search.report.analysis import summary

DOCS = (Path(__file__).parents[3] / "docs" / "results.md").read_text()
PARAMETERS = {"eigengap.weight": ("float", "1", "factor of the term")}


@pytest.mark.parametrize("table", TABLES)
def test_every_column_is_documented_with_type_unit_and_meaning(table):
    section = DOCS.split(f"## {table}/\n")[1].split("\n## ")[0]
    rows = [row for row in section.splitlines() if row.startswith("| `")]
    documented = [row for row in rows if not row.startswith("| `params.")]
    assert documented == [
        f"| `{c.name}` | {c.type} | {c.unit} | {c.about} |" for c in TABLES[table]
    ]
    for name in KEYS[table]:
        assert f"`{name}`" in section.split("\n| column")[0]


def test_every_column_of_the_summary_is_documented():
    section = DOCS.split("## report/summary.parquet\n")[1]
    rows = [row for row in section.splitlines() if row.startswith("| `")]
    assert rows == [f"| `{c.name}` | {c.type} | {c.unit} | {c.about} |" for c in summary.COLUMNS]


def test_names_are_unique_and_units_are_known():
    for table in TABLES:
        known = columns(table, PARAMETERS)
        assert len({c.name for c in known}) == len(known)
        for column in known:
            assert column.unit in {"", "1", "s", "dB", "deg", "B", "epochs", "tr(R)", "UTC"}, (
                column
            )
            assert column.type != "float" or column.unit, column  # a measured number has a unit


def test_one_word_is_one_thing():
    """A column that several tables have is of one type and unit in all of them."""
    seen = {}
    for table in TABLES:
        for c in columns(table, PARAMETERS):
            assert seen.setdefault(c.name, (c.type, c.unit)) == (c.type, c.unit), (table, c.name)
