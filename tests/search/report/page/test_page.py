"""A report is one self-contained page with every figure and number, also of a broken run."""

import re

import pandas as pd
import pyarrow.parquet as pq
import pytest

from search import report
from search.plan.outcome import Outcome
from search.records.schema import TABLES
from search.records.store import RunStore
from search.report.__main__ import main
from search.report.analysis import health, held_out, paired_by_scene, summary
from search.report.figures.atlas import draw_failure_atlas
from search.report.figures.catalogue import pictures_of
from search.report.figures.progress import draw_history
from search.report.figures.style import rendered
from search.report.page import sections
from search.report.page.compare import winners
from search.report.page.layout import draw_picture
from search.report.page.write import write_report
from tests import drawn_run
from tests.stored import ended_trial


@pytest.fixture(scope="module")
def page(written):
    """The page of the written report."""
    return (written.folder / "index.html").read_text()


@pytest.fixture
def bare(tmp_path):
    """A run whose first trial still runs."""
    path = drawn_run.make(tmp_path / "bare", trials=1).path
    for part in path.glob("*/t0000.parquet"):
        part.unlink()
    return path


def words_of(path):
    """Everything a report of that run says, without rendering its figures."""
    run = report.load(path)
    figures = [picture.draw(run) for picture in pictures_of(run)]
    notes = [n for said in health.notes(run).values() for n in said]
    found = [
        sections.leaderboard_section(run),
        sections.confirmations(run),
        sections.failures(run),
    ]
    text = [t for section in (*found, sections.plan(run)) for t in section.text]
    summary.frame(run)
    reasons = [f for f in figures if isinstance(f, str)]
    return "\n".join([*run.notes, *sections.lead(run), *text, *notes, *reasons])


def test_the_command_writes_and_opens_without_ray_and_torch(written):
    assert written.printed[-1] == "0 []"
    assert written.opened == (written.folder / "index.html").as_uri()


@pytest.mark.slow
def test_the_command_compares(compared):
    written, other = compared
    assert written.printed[-1] == "0 []"
    page = written.folder / "compare-other.html"
    assert written.opened == page.as_uri()
    said = page.read_text()
    names = {p.name for run in (written.run, other) for p in pictures_of(run)}
    assert said.count('<div class="pair">') == len(names)
    plans = said[said.index('id="plans-table"') :]
    assert re.search(r">trials</td>\s*<td[^>]*><code>24</code></td>\s*<td[^>]*><code>3<", plans)
    assert "The best trial of drawn (t" in said


def test_the_report_has_its_files(written):
    assert (written.folder / "summary.parquet").is_file()
    for picture in pictures_of(written.run):
        for kind, magic in (("png", b"\x89PNG"), ("svg", b"<?xml")):
            file = written.folder / f"{picture.name}.{kind}"
            assert file.read_bytes().startswith(magic)


def test_the_page_has_every_figure_and_needs_nothing_else(drawn, page):
    sources = re.findall(r'<img src="([^"]{40})', page)
    assert len(sources) == len(list(pictures_of(drawn))) >= 11
    assert all(source.startswith("data:image/svg+xml;base64,") for source in sources)
    links = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert not [link for link in links if re.match(r"(\w+:)?//", link)]
    assert "default-src 'none'" in page


def test_the_first_rows_are_the_bound_and_classical_music(page):
    board = page[page.index('id="leaderboard-table"') :]
    rows = re.findall(r"<tr[^>]*>\s*<td[^>]*>([^<]*)<", board)
    assert rows[:3] == ["√CRB", "LMMSE-MUSIC", "stochastic ML"]
    assert rows[5].startswith("t00")


def test_stochastic_ml_is_row_two_once_it_is_scored(small):
    store = RunStore.open(small)
    rows = store.read("evaluations")
    shared = rows[rows["trial_id"].isna()].astype(object)
    music = shared[shared["estimator"] == "lmmse_music"].assign(estimator="sml")
    both = pd.concat([shared, music])
    plain = both.where(both.notna(), None).to_dict("records")
    store.write_part("evaluations", "baselines", plain)
    board = sections.leaderboard_section(report.load(small)).tables[0]
    names = [row.cells[0].text for row in board.rows[:3]]
    assert names == ["√CRB", "LMMSE-MUSIC", "stochastic ML"]


def test_confirmed_values_stand_beside_the_search_values(drawn):
    run = drawn
    board = sections.leaderboard_section(run).tables[0]
    rows = {row.cells[0].text: row.cells for row in board.rows}
    assert list(rows)[:3] == ["√CRB", "LMMSE-MUSIC", "stochastic ML"]
    search, again, curse, _ = rows[run.best][2:6]
    fresh = run.tables["scenes"].query(
        "trial_id == @run.best and changes == '' and snr_db in (-5, 0)"
    )
    assert float(again.key) == pytest.approx(fresh["capped_error"].mean(), rel=1e-9)
    assert again.small.endswith("] ×3")
    assert float(curse.key) == pytest.approx(float(again.key) - float(search.key))
    own = run.trials.set_index("trial_id").loc[run.best]
    assert float(search.key) == own["objective"]
    assert search.small == f"[{own['objective_low']:.3f}, {own['objective_high']:.3f}]"
    said = "\n".join(sections.confirmations(run).text)
    assert "eigengap: hurts; capped error " in said
    assert f"{run.best} against" in said or "against LMMSE-MUSIC" in said
    unconfirmed = [c for name, c in rows.items() if name.startswith("t") and not c[3].small]
    assert unconfirmed
    assert all(cell.text == "–" for cells in unconfirmed for cell in cells[3:5])


def test_equal_runs_make_equal_figures(six):
    one, two = (rendered(draw_history(report.load(six)), "svg") for _ in range(2))
    assert one == two


def test_the_summary_has_every_trial_with_units(written):
    run = written.run
    frame = pd.read_parquet(written.folder / "summary.parquet")
    own = frame.dropna(subset=["trial_id"]).set_index("trial_id")
    trials = run.trials.set_index("trial_id")
    assert set(own.index) == set(trials.index)
    assert (
        own["objective"].dropna() == trials["objective"].dropna().reindex(own.index).dropna()
    ).all()
    assert own.index[own["best"]].tolist() == [run.best]
    schema = pq.read_schema(written.folder / "summary.parquet")
    for field in schema:
        assert field.metadata[b"description"].strip(), field.name
    assert schema.field("seconds").metadata[b"unit"] == b"s"
    assert schema.field("params.eps_psd").metadata[b"unit"] == b"tr(R)/N"


def test_a_figure_that_can_no_longer_be_drawn_does_not_linger(small):
    run = report.load(small)
    old = small / "importances.png"
    old.write_bytes(b"old")
    (picture,) = (p for p in pictures_of(run) if p.name == "importances")
    figure = draw_picture(run, picture, small)
    assert figure.source == ""
    assert figure.reason.startswith("No importances: they need 10 ended trials at one epoch")
    assert not old.exists()


# ---------------------------------------------------------------- broken and partial runs


@pytest.mark.parametrize("table", TABLES)
def test_a_missing_table_is_said(small, table):
    for part in (small / table).iterdir():
        part.unlink()
    (small / table).rmdir()
    assert f"The table `{table}` is missing." in words_of(small)


@pytest.mark.parametrize("table", ["trials", "epochs", "evaluations"])
def test_a_truncated_part_is_said(small, table):
    parts = list((small / table).glob("t*.parquet"))
    for part in parts:
        part.write_bytes(part.read_bytes()[: part.stat().st_size // 2])
    assert parts
    said = words_of(small)
    for part in parts:
        assert f"{table}/{part.name} is damaged and left out." in said


def test_a_run_without_a_trial_says_so(bare):
    said = words_of(bare)
    assert "0 of 1 planned trials have ended." in said
    assert "No trial has ended." in said
    page = write_report(report.load(bare)).read_text()
    assert "No trial has ended." in page
    assert "√CRB" in page


def test_a_run_in_which_everything_diverged_says_so(small):
    store = RunStore.open(small)
    for part in (small / "trials").glob("t*.parquet"):
        (row,) = pq.read_table(part).to_pylist()
        row |= {"outcome": Outcome.DIVERGED, "cause": "nonfinite_loss", "objective": None}
        failed = {"trial_id": row["trial_id"], "attempt": 1, "outcome": Outcome.DIVERGED}
        ended_trial(store, row | {"rung": None}, failures=[failed | {"term": "eigengap"}])
    said = words_of(small)
    assert "No trial completed, so there is no best one." in said
    assert "6 of 6 trials failed (100%): 6 diverged." in said
    assert not isinstance(draw_failure_atlas(report.load(small)), str)


def test_a_run_that_still_runs_says_so(tmp_path):
    path = drawn_run.make(tmp_path / "half", trials=8).path
    for part in sorted((path / "trials").glob("t*.parquet"))[5:]:
        part.unlink()
    said = words_of(path)
    assert "5 of 8 planned trials have ended" in said
    assert "The search is still running, or was interrupted" in said


def test_a_lost_plan_and_damaged_tables_still_give_a_page(small, capsys):
    (small / "run.json").write_text("{")
    for table in TABLES:
        for part in (small / table).glob("*.parquet"):
            part.write_bytes(b"PAR1")
    assert main([str(small)]) == 0
    assert "is damaged and left out" in capsys.readouterr().out
    page = (small / "report" / "index.html").read_text()
    assert "The plan is unknown" in page
    assert "Traceback" not in page


# ---------------------------------------------------------------- the command


def test_a_wrong_name_is_bad_usage_with_a_hint(drawn, capsys):
    path = drawn.path
    assert main(["drwan", "--runs", str(path.parent)]) == 2
    assert "Did you mean `drawn`?" in capsys.readouterr().err
    assert main([]) == 2
    assert main([str(path), "--opne"]) == 2
    assert "Did you mean `--open`?" in capsys.readouterr().err
    assert main([str(path), "--compare", str(path)]) == 2
    assert "--compare takes another run" in capsys.readouterr().err


def test_a_folder_that_takes_no_files_is_bad_usage(small, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main([str(small), "--out", str(tmp_path / "file" / "x")]) == 2
    assert "Choose another with `--out`" in capsys.readouterr().err


# ---------------------------------------------------------------- two runs


def test_winners_are_paired_by_scene_and_only_on_equal_scenes(drawn, small, bare):
    one, two = drawn, report.load(small)
    own = [
        r.tables["scenes"].query("trial_id == @r.best and snr_db in (-5, 0) and changes.isna()")
        for r in (one, two)
    ]
    means = [rows.groupby("scene_id")["capped_error"].mean() for rows in own]
    scores = [held_out(one, "network"), held_out(two, "network")]
    found = paired_by_scene(*scores)
    assert f"capped error {found}, paired over {found.n} held-out" in winners(one, two)
    assert found.n == drawn_run.SCENES
    assert found.mean == pytest.approx((means[0] - means[1]).mean(), rel=1e-12)
    flipped = paired_by_scene(*reversed(scores))
    assert (flipped.low, flipped.high) == pytest.approx((-found.high, -found.low))
    two.plan["fixed"]["scene.num_antennas"] += 1
    assert "other scenes (scene.num_antennas)" in winners(one, two)
    none = winners(one, report.load(bare))
    assert none == "The winners cannot be compared: no trial of bare completed."
    assert winners(one, one).endswith("they score the same on every scene.")
