"""The registered experiment is the one of its design file, and a reduced size of it runs."""

import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from eigengap_map import compared, complete_seeds, tables, write
from kept_run import pack, unpack

from search import ablate
from search.plan import RunExists
from search.records.schema import KEYS
from search.records.store import RunStore
from search.report.data import load
from search.report.factorial import effects, sentences
from search.reruns.design import Design
from tests.designed_run import SEEDS, made
from tests.local_ray import install
from tests.stored import unfinished

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


def test_only_seeds_that_all_arms_completed_are_compared(tmp_path):
    """A training that failed has ended; one that is missing has not."""
    whole = made(tmp_path / "x", lost={("good", 2)})
    assert compared(whole)[0] is whole
    rows = whole.tables["ablations"]

    def without(*missing):
        left = rows[~rows["trial_id"].isin(missing)]
        return replace(whole, tables={**whole.tables, "ablations": left})

    partial = without("gram-local-3-bad")
    assert complete_seeds(partial) == [1, 2, 4]
    own, said = compared(partial)
    assert f"all arms completed 3 of {SEEDS} seeds, which are compared" in said
    assert {one.difference.n for one in effects(own) if one.term == "same"} == {3}
    assert {one.difference.n for one in effects(own) if one.term == "good"} == {2}
    own, said = compared(without("gram-local-3-bad", "gram-few-1-none"))
    assert "2 of 4 seeds, fewer than 3, so nothing is compared" in said
    assert effects(own) == []


def test_the_page_takes_every_table_and_its_figure(tmp_path):
    run = made(tmp_path / "x")
    page = tmp_path / "docs" / "page.md"
    figure = page.with_name("figures") / "map.png"
    figure.parent.mkdir(parents=True)
    page.write_text(PAGE)
    write(run, page, figure)
    text = page.read_text()
    assert text.partition("## Results")[0] == PAGE.partition("## Results")[0]
    assert "](figures/map.png)" in text
    assert figure.stat().st_size > 10_000
    d = effects(run)[0].difference
    assert f"| {d} **helps** | " in text
    assert all(each in text for each in tables(run).values())


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


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The folder of a reduced size that has run, with its design beside it."""
    folder = tmp_path_factory.mktemp("done")
    file = folder / "small.toml"
    file.write_text(reduced(FILE.read_text()))
    with pytest.MonkeyPatch.context() as patch:
        install(patch)
        assert carried_out(file, folder) == 0
    return folder / "small"


def carried_out(file: Path, out: Path) -> int:
    return ablate.main(["--design", str(file), "--out", str(out), "--max-concurrent", "1"])


@pytest.mark.slow
def test_a_reduced_size_runs_to_its_map(done):
    run = load(done)
    assert list(run.trials["outcome"]) == ["completed"] * 9
    said = " ".join(sentences(run))
    assert "4 of 4 cells" in said
    assert said.count("Control, a gain of 0.1") == 2
    assert "P(K right), best rule" in (done / "report" / "map.md").read_text()
    assert (done / "report" / "map.png").stat().st_size > 10_000


@pytest.mark.slow
def test_a_kept_run_goes_on_with_what_it_lacks(done, tmp_path, monkeypatch):
    """Of the last trainings one has not ended and one has no scores; all rows are as they were."""
    install(monkeypatch)
    half = tmp_path / "half" / "small"
    shutil.copytree(done, half)
    *kept, unscored, running = RunStore.open(half).read("trials").sort_values("number")["trial_id"]
    unfinished(RunStore.open(half), running)
    for name in (unscored, running):
        (half / "scenes" / f"{name}.parquet").unlink()
    file = tmp_path / "kept.zip"
    file.write_bytes(pack(half))
    run = unpack(file, tmp_path)
    assert run == tmp_path / "small"
    before = load(run)
    assert before.notes == ()
    assert set(before.trials["trial_id"]) == set(kept)
    assert tables(load(unpack(file, tmp_path / "again"))) == tables(before)
    for table in ("trials", "scenes"):
        whole = load(done).tables[table]
        own = [
            rows[rows["trial_id"].isin(kept)].sort_values(list(KEYS[table]), ignore_index=True)
            for rows in (whole, before.tables[table])
        ]
        pd.testing.assert_frame_equal(*own, check_exact=True)

    assert carried_out(done.parent / "small.toml", tmp_path) == 0
    assert {path.name for path in (run / "ray").iterdir() if path.is_dir()} == {unscored, running}
    after = load(run)
    assert sorted(after.trials["trial_id"]) == sorted(load(done).trials["trial_id"])
    assert after.trials["number"].is_unique
    pd.testing.assert_frame_equal(
        after.tables["ablations"], load(done).tables["ablations"], check_exact=True
    )
    with pytest.raises(RunExists):
        unpack(file, tmp_path)
