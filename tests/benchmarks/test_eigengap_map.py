"""The registered experiment is the one of its design file, and a reduced size of it runs."""

import re
from pathlib import Path

import pytest

from search import ablate
from search.report.data import load
from search.report.factorial import sentences
from search.reruns.design import Design
from tests.local_ray import install

ROOT = Path(__file__).parents[2]
FILE = ROOT / "benchmarks" / "eigengap.toml"
PAGE = (ROOT / "docs" / "eigengap_map.md").read_text()


def test_the_page_registers_this_design():
    design = Design.read(str(FILE))
    (registered,) = re.findall(r"`([0-9a-f]{64})`", PAGE)
    assert registered == design.sha256
    arms = len(design.arms(design.terms))
    networks, regimes, terms = map(len, (design.networks, design.regimes, design.terms))
    assert f"{networks} networks x {regimes} regimes x {terms} terms = {arms} arms" in PAGE
    assert f"8 trainings each: {design.num_trainings}" in PAGE
    cells = networks * regimes * (terms - 1)
    assert f"One family* of {2 * 2 * cells} tests: {cells} cells x 2 outcomes" in PAGE
    assert all(f"`{name}`" in PAGE for name in (*design.networks, *design.terms))
    assert dict(design.margins) == {"capped_error": 0.005, "source_number_accuracy": 0.01}
    assert design.control["gain"] == 0.1


def reduced(text: str) -> str:
    """Return the design with one network and regime, three terms, one try, and little training."""
    kept = {"networks.gram", "regimes.local", "terms.none", "terms.threshold", "terms.count"}
    head, *sections = text.split("\n[")
    sections = [s for s in sections if "." not in (n := s.partition("]")[0]) or n in kept]
    text = "\n[".join([head, *sections])
    for name, value in {
        "seeds": 2,
        "scenes": 8,
        "validation_scenes": 4,
        "epochs": 1,
        "steps_per_epoch": 2,
        "batch_size": 8,
    }.items():
        text = re.sub(rf"^{name} = \d+$", f"{name} = {value}", text, flags=re.MULTILINE)
    return re.sub(r"\[0\.\d+, [^]]*\]", "[0.01]", text)


@pytest.mark.slow
def test_a_reduced_size_runs_to_its_map(tmp_path, monkeypatch, capsys):
    install(monkeypatch)
    file = tmp_path / "small.toml"
    file.write_text(reduced(FILE.read_text()))
    flags = ["--design", str(file), "--out", str(tmp_path), "--max-concurrent", "1"]
    assert ablate.main(flags) == 0
    run = load(tmp_path / "small")
    assert list(run.trials["outcome"]) == ["completed"] * 9
    said = " ".join(sentences(run))
    assert "4 of 4 cells" in said
    assert said.count("Control, a gain of 0.1") == 2
    assert "P(K right), best rule" in capsys.readouterr().out
    assert (tmp_path / "small" / "report" / "map.png").stat().st_size > 10_000
