"""The promises of docs/results.md on a real run: its code runs, line by line, and other readers
find the same numbers."""

import ast
import json
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.figure import Figure

from search.records import best_trials
from search.report.data import load
from search.report.figures import pictures_of

pytestmark = pytest.mark.ray
DOCS = (Path(__file__).parents[3] / "docs" / "results.md").read_text()
BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)


@pytest.fixture(scope="module")
def answers(smoke):
    """Every code block of the document, run in order on the real run: names, and last values."""
    path, _ = smoke
    space, values = {}, []
    for block in BLOCK.findall(DOCS):
        values.append(run(block.replace("runs/x", str(path)).replace('"x"', '"smoke"'), space))
    return space, values


def run(block, space):
    """The value of a block's last line, if it is an expression, as a notebook shows it."""
    tree = ast.parse(block)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "docs/results.md", "exec"), space)
    if last is None:
        return None
    return eval(compile(ast.Expression(last.value), "docs/results.md", "eval"), space)


def test_ten_questions_are_answered_in_one_or_two_lines_each():
    section = DOCS.split("## Ten questions")[1].split("\n## ")[0]
    questions = re.split(r"\n\*\*\d+\. ", section)[1:]
    assert len(questions) == 10
    for question in questions:
        lines = BLOCK.search(question).group(1).strip().splitlines()
        assert 1 <= len(lines) <= 2, question


def test_the_answers_are_those_of_the_run(answers):
    space, values = answers
    given = [v for v in values if isinstance(v, pd.DataFrame | pd.Series)]
    assert len(given) >= 10
    best, outcomes, failures, curves, error, paired, above, backends, hours, gaps = given[:10]
    trials = space["trials"]
    assert best["trial_id"].tolist() == best_trials(trials)[: len(best)]
    assert outcomes.sum() == len(trials) == 4
    assert len(failures) == len(space["failures"])
    assert set(curves.columns) == set(trials["trial_id"])
    assert {(1, "crb"), (2, "network")} <= set(error.columns)
    assert {"count", "mean", "std"} <= set(paired.columns)
    assert above.loc["crb"].abs().max() < 1e-9
    assert len(backends) >= 1
    assert hours["seconds"].sum() * 3600 == pytest.approx(trials["seconds"].sum())
    assert (gaps >= 1).all()
    assert set(gaps.index.get_level_values("stage")) == {"measured", "untrained", "trained"}


def test_question_six_pairs_equal_scenes_of_a_confirmed_run_too(drawn):
    """Classical methods are scored twice then, on two draws of scenes whose ids agree."""
    from search.report.analysis.leaderboard import paired_with
    from tests import drawn_run

    question = next(b for b in BLOCK.findall(DOCS) if "network - lmmse_music" in b)
    space = {"scenes": pd.read_parquet(drawn.path / "scenes")}
    found = run(question, space)
    own = space["scenes"].query("changes.isna() and evaluation_seed == @drawn_run.SEED")
    by = own.groupby(["estimator", "snr_db"])["capped_error"].mean()
    assert set(found["count"]) == {drawn_run.SCENES}
    for snr_db, mean in found["mean"].items():
        by_hand = by["network", snr_db] - by["lmmse_music", snr_db]
        assert mean == pytest.approx(by_hand, abs=1e-12)
    assert found["mean"][[-5.0, 0.0]].mean() == pytest.approx(paired_with(drawn).mean)


def test_duckdb_and_polars_read_what_pandas_reads(answers, smoke):
    space, _ = answers
    theirs = space["by_outcome"].set_index("outcome")["n"].to_dict()
    assert theirs == space["trials"].groupby("outcome").size().to_dict()
    seconds = dict(space["seconds"].iter_rows())
    own = pd.read_parquet(smoke[0] / "epochs")
    assert seconds == pytest.approx(own.groupby("trial_id")["seconds"].sum().to_dict())


def test_units_are_printed_from_the_files(smoke, capsys):
    path, _ = smoke
    (block,) = (b for b in BLOCK.findall(DOCS) if "read_schema" in b)
    run(block.replace("runs/x", str(path)), {})
    assert "seconds s wall-clock time in training" in capsys.readouterr().out


def test_the_study_has_every_ended_trial(answers):
    space, _ = answers
    named = {t.user_attrs["trial_id"] for t in space["study"].trials}
    assert named == set(space["trials"]["trial_id"])


def test_the_optuna_dashboard_lists_the_run(smoke):
    path, _ = smoke
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    dashboard = Path(sys.executable).with_name("optuna-dashboard")
    argv = [str(dashboard), str(path / "optuna.log"), "--host", "127.0.0.1", "--port", str(port)]
    server = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        studies = asked(f"http://127.0.0.1:{port}/api/studies", server)
        (study,) = studies["study_summaries"]
        assert study["study_name"] == "smoke"
        page = f"http://127.0.0.1:{port}/api/studies/{study['study_id']}?after=0"
        assert len(asked(page, server)["trials"]) == 4
    finally:
        server.terminate()
        server.wait(timeout=10)


def asked(url, server):
    """The JSON at `url`, as soon as the server answers."""
    deadline = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return json.load(answer)
        except urllib.error.URLError:
            assert server.poll() is None, "the dashboard has ended"
            assert time.monotonic() < deadline, "the dashboard does not answer"
            time.sleep(0.2)


def test_a_real_run_has_all_figures_of_the_trainer(smoke):
    run = load(smoke[0])
    assert run.notes == ()
    shown = {p.name for p in pictures_of(run) if isinstance(p.draw(run), Figure)}
    assert {"error_vs_snr_k1", "above_crb", "history", "spectra", "pseudospectra"} <= shown
