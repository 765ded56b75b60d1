"""The document of the eigengap has every table that its benchmark writes."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_document_has_a_table_for_everything_that_is_measured():
    text = (ROOT / "docs" / "eigengap.md").read_text()
    tables = dict(re.findall(r"<!-- ([\w ]+) -->\n(.*?)<!-- end -->", text, re.DOTALL))
    source = (ROOT / "benchmarks" / "eigengap_facts.py").read_text()
    facts = re.findall(r'^    "([\w ]+)": \w+,$', source, re.MULTILINE)
    assert set(facts) == {"loading and ties", "founding claims", "definitions and error"}
    on_cpu = {"speed cpu", "share cpu", "rates", *facts}
    assert set(tables) == on_cpu | {"speed cuda", "share cuda"}
    assert all(tables[name].strip() for name in on_cpu)
