"""The confusion of K: shares of scenes, of the methods that were asked, without reruns."""

import pandas as pd
import pytest

from search.records.schema import TABLES
from search.report.analysis.source_numbers import confusion, confusion_table
from search.report.data import Run


def run_of(rows: list[dict[str, object]]) -> Run:
    names = {name: [column.name for column in columns] for name, columns in TABLES.items()}
    tables = {name: pd.DataFrame(columns=columns) for name, columns in names.items()}
    about = {"snr_db": 0.0, "estimator": "posterior", "trial_id": None, "changes": None}
    scenes = pd.DataFrame([about | row for row in rows], columns=names["scenes"])
    return Run(path=None, tables=tables | {"scenes": scenes})  # type: ignore[arg-type]


def test_a_row_has_the_shares_of_the_scenes_of_its_true_number():
    right = [{"num_sources": k, "source_number": k} for k in (0, 1, 2)]
    found = confusion(run_of([*right, {"num_sources": 2, "source_number": 1}]))
    assert found[[0, 1, 2]].sum(axis=1).to_list() == pytest.approx([1, 1, 1])
    assert found[[0, 1, 2]].to_numpy().tolist() == [[1, 0, 0], [0, 1, 0], [0, 0.5, 0.5]]
    assert found["num_scenes"].to_list() == [1, 1, 2]


def test_the_best_trial_has_rows_by_its_eigenvalues_and_by_the_evidence(monkeypatch):
    monkeypatch.setattr(Run, "best", "t0007")
    said = {"network": 1, "network+judged": 0}
    mine = {"num_sources": 0, "trial_id": "t0007"}
    rows = [mine | {"estimator": name, "source_number": k} for name, k in said.items()]
    found = confusion(run_of(rows)).set_index("estimator")
    assert {name: found.loc[name, k] for name, k in said.items()} == dict.fromkeys(said, 1.0)


def test_reruns_and_methods_that_were_not_asked_are_left_out():
    rows = [
        {"num_sources": 1, "source_number": None},
        {"num_sources": 1, "source_number": 1, "changes": ""},
        {"num_sources": 1, "source_number": 1, "trial_id": "t0007", "estimator": "network"},
    ]
    assert confusion_table(run_of(rows)) is None
