"""Lost scores are made again, whichever table they were lost from."""

import pytest

from search.records.missing_scores import (
    BASELINE_TABLES,
    BEST_TABLES,
    LEADING,
    add_baseline,
    lacks_scores,
    unscored,
)
from search.records.schema import BASELINE_PART, TABLES
from tests.stored import created
from trainer.config import EvaluationConfig

store = pytest.fixture(created)
EVALUATION = EvaluationConfig(baselines=("crb", "pinv_music"))
WANTED = [*LEADING, "pinv_music"]


def tables(name: str, error: float = 0.5) -> dict[str, list[dict[str, object]]]:
    """Return the tables that a worker returns of one method."""
    row = {"estimator": name, "snr_db": 0.0, "num_sources": 1, "capped_error": error}
    return {"evaluations": [row | {"num_scenes": 1}], "scenes": [row | {"scene_id": 0}]}


def test_methods_are_scored_one_by_one_and_none_is_asked_for_twice(store):
    for count, name in enumerate(WANTED):
        assert unscored(store, EVALUATION) == WANTED[count:]
        add_baseline(store, name, tables(name), seed=5)
    assert unscored(store, EVALUATION) == []
    assert list(store.read("scenes")["estimator"]) == WANTED
    assert set(store.read("evaluations")["evaluation_seed"]) == {5}


@pytest.mark.parametrize("table", BASELINE_TABLES)
@pytest.mark.parametrize("how", ["deleted", "emptied"])
def test_scores_that_were_lost_from_one_table_are_made_again_and_not_doubled(store, table, how):
    for name in WANTED:
        add_baseline(store, name, tables(name), seed=5)
    if how == "deleted":
        (store.path / table / f"{BASELINE_PART}.parquet").unlink()
    else:
        store.write_part(table, BASELINE_PART, [])
    assert unscored(store, EVALUATION) == WANTED
    for name in WANTED:
        add_baseline(store, name, tables(name, error=0.25), seed=5)
    for each in BASELINE_TABLES:
        rows = store.read(each)
        assert list(rows["estimator"]) == WANTED
        assert set(rows["capped_error"]) == {0.25}


@pytest.mark.parametrize("table", BEST_TABLES)
def test_a_best_network_lacks_its_scores_while_one_table_has_no_rows_of_it(store, table):
    plain = {"str": "x", "int": 0, "int32": 1, "float": 0.0, "bool": False}
    for each in BEST_TABLES:
        assert lacks_scores(store, "t1")
        row = {c.name: plain[c.type] for c in TABLES[each] if c.required}
        store.write_part(each, "t1", [row | {"trial_id": "t1"}])
    assert not lacks_scores(store, "t1")
    store.write_part(table, "t1", [])
    assert lacks_scores(store, "t1")
