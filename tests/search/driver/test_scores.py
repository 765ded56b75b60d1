"""Jobs that fail after a search leave the results of the others in the run."""

from types import SimpleNamespace

import pytest

from search.cluster import tasks
from search.driver import scores
from search.driver.scores import Baselines
from search.plan.config import SearchConfig
from search.plan.errors import SearchFailed
from search.plan.resources import Resources
from tests.stored import created
from trainer.limits import kept_limits, snr_of_limit

store = pytest.fixture(created)
ONE = Resources(cpus=1, gpus=0, concurrent=1)
PLAN = SearchConfig("smoke", 1, "x")


@pytest.mark.parametrize("preset", ["smoke", "local", "eigengap", "spectral"])
def test_the_limits_that_are_kept_serve_every_preset_of_the_small_scene(preset):
    template = SearchConfig(preset, 1, "x").template
    assert set(kept_limits(template)) == {"limit_shape", "limit_blind"}
    assert snr_of_limit(template) == template.evaluation.objective_snr_db


def tables(name: str) -> dict[str, list[dict[str, object]]]:
    row = {"estimator": name, "snr_db": 0.0, "num_sources": 1, "capped_error": 0.5}
    return {"evaluations": [row | {"num_scenes": 1}], "scenes": [row | {"scene_id": 0}]}


def test_a_method_that_fails_does_not_take_the_others_with_it(store, monkeypatch):
    broken = {"sml"}

    def result_of(job: str, name: str) -> dict[str, list[dict[str, object]]]:
        assert job == name
        if name in broken:
            raise SearchFailed(f"{name} failed on its worker")
        return tables(name)

    monkeypatch.setattr(scores, "submit", lambda resources, function, config, names: names[0])
    monkeypatch.setattr(scores, "result_of", result_of)
    monkeypatch.setattr(tasks, "ray", SimpleNamespace(wait=lambda jobs: (jobs[:1], jobs[1:])))
    with pytest.raises(SearchFailed, match=r"^sml failed on its worker$"):
        scores.score_best(PLAN, store, ONE, Baselines(PLAN, store, ONE))
    known = set(store.read("scenes")["estimator"])
    assert {"crb", "lmmse_music", "limit_shape", "limit_blind"} <= known
    broken.clear()
    scores.score_best(PLAN, store, ONE, Baselines(PLAN, store, ONE))
    assert set(store.read("evaluations")["estimator"]) == known | {"sml"}
    assert not Baselines(PLAN, store, ONE).missing
