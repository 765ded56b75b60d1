"""The document of the eigengap has all tables of its benchmark, and the benchmark runs."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.adversarial import LOSSES

ROOT = Path(__file__).parents[2]


def test_the_document_has_a_table_for_everything_that_is_measured():
    text = (ROOT / "docs" / "eigengap.md").read_text()
    tables = dict(re.findall(r"<!-- ([\w ]+) -->\n(.*?)<!-- end -->", text, re.DOTALL))
    source = (ROOT / "benchmarks" / "eigengap_facts.py").read_text()
    facts = re.findall(r'^    "([\w ]+)": \w+,$', source, re.MULTILINE)
    named = {"loading and ties", "founding claims", "definitions and error", "forty digits"}
    assert set(facts) == named
    on_cpu = {"speed cpu", "share cpu", "guards cpu", "rates", *facts}
    others = {"ablation", "confirmed"}  # of eigengap_ablation.sh
    assert set(tables) == on_cpu | {"speed cuda", "share cuda", "guards cuda"} | others
    assert all(tables[name].strip() for name in on_cpu)


@pytest.mark.slow
def test_the_benchmark_finds_exact_and_gram_sound_and_the_flip_dead():
    tables = ["speed cpu", "rates", "loading and ties", "founding claims", "definitions and error"]
    command = [sys.executable, "benchmarks/eigengap.py", "--sizes", "24", "--matrices", "400"]
    done = subprocess.run(
        [*command, "--no-write", "--only", *tables],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    rows = [line for line in done.stdout.splitlines() if re.match(r"\| .*`(exact|gram)` \|", line)]
    sound = [row for row in rows if ", `" in row]
    assert len(sound) == 2 * len(LOSSES)
    for row in sound:
        assert re.search(r"\| 0 / 0 \| [\d.]+ \| 0 \| 0 / 0 \| [\d.]+ \| 0 \|$", row), row
    flip = r"founding flip \| 0 / 0 \| [\d.]+ \| 100.0 \| 0 / 0 \| [\d.]+ \| 100.0 \|"
    assert re.search(flip, done.stdout)
