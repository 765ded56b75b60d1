"""Reruns and the arms of an ablation; nothing is trained here."""

import pytest

import spaces
from search import ablate
from search.plan.rerun import MAX_SEEDS, FreshScenes, Rerun, training_seeds
from search.records.store import RunStore
from search.reruns import arms
from search.reruns.request import RerunRequest
from trainer.config import ConfigError, TrainConfig


def test_seeds_are_shared_by_no_two_trials():
    used = [seed for number in range(20) for seed in training_seeds(number, MAX_SEEDS)]
    assert len(set(used)) == 20 * MAX_SEEDS
    assert training_seeds(3, 2) == training_seeds(3, 5)[:2]


def test_a_training_is_named_after_all_that_it_depends_on():
    params = TrainConfig().to_params()
    one = Rerun.of("t0001", params, 7)
    assert one == Rerun.of("t0001", {**params, "seed": 3}, 7)
    assert one.changes == ""
    other = Rerun.of("t0001", params, 7, **{"optimizer.learning_rate": 0.02})
    assert other.changes == "optimizer.learning_rate=0.02"
    assert len({one.name, other.name, Rerun.of("t0001", params, 8).name}) == 3


def test_a_term_switched_off_leaves_nothing_behind():
    on = {"eigengap.weight": 0.3, "eigengap.definition": "subspace"}
    on |= {"eigengap.margin_subspace": 0.1, "spectral.backend": "svd"}
    off = Rerun.of("t0", on, 0, **arms.switched_off(on, "eigengap"))
    assert off.config == Rerun.of("t0", {}, 0).config


def test_a_rerun_trains_as_its_trial_does_but_for_the_seed():
    """It leaves out most of its own validation, which changes no weight."""
    params = TrainConfig().to_params()
    rerun = Rerun.of("t0", params, params["seed"]).config.to_params()
    differ = {name for name in params if rerun[name] != params[name]}
    assert differ == {"evaluation.num_scenes", "evaluation.num_test_scenes"}
    assert rerun["evaluation.num_scenes"] < params["evaluation.num_scenes"]


@pytest.mark.parametrize("definition", spaces.blocks.ACTING)
def test_every_definition_has_a_setting_at_which_it_acts(definition):
    params = TrainConfig().to_params()
    on = Rerun.of("t0", params, 0, **arms.as_defined(params, definition))
    assert on.config.eigengap.weight > 0
    name, margin = spaces.blocks.MARGINS[definition]
    assert on.config.to_params()[name] in margin


def test_both_arms_are_rows_of_the_scenes_that_were_asked_for(tmp_path):
    """The arm that was confirmed before has more scenes: a mean over those would not pair."""
    one = Rerun.of("t0001", TrainConfig().to_params(), 7)
    store = RunStore.create(tmp_path / "x", parameters={}, plan={})
    store.write_part("scenes", one.name, list(scored_scenes(12)))
    asked = RerunRequest(store, None, ("t0001",), 1, 1, FreshScenes(5, 4, (-5.0, 0.0)))
    rows = list(ablate.ablation_rows(asked, "x", "without", one, []))
    assert [(row["snr_db"], row["num_sources"]) for row in rows] == [(-5.0, 1), (0.0, 1)]
    for row in rows:
        assert row["num_scenes"] == 4
        assert row["capped_error"] == pytest.approx(0.15)  # of .0, .1, .2, .3
        assert row["success_rate"] == pytest.approx(0.5)
        assert "source_number_accuracy" not in row  # nobody asked


def scored_scenes(count):
    """Scenes of two seeds at three SNRs, each a tenth worse than the one before."""
    for evaluation_seed, shift in ((5, 0.0), (6, 9.0)):
        for snr_db in (-5.0, 0.0, 10.0):
            for scene in range(count):
                yield {
                    "trial_id": "t0001",
                    "estimator": "network",
                    "seed": 7,
                    "evaluation_seed": evaluation_seed,
                    "changes": "",
                    "scene_id": scene,
                    "snr_db": snr_db,
                    "num_sources": 1,
                    "capped_error": shift + scene / 10,
                    "success": float(scene % 2),
                }


def test_scenes_of_the_search_are_not_fresh():
    config = TrainConfig()
    for seed in (config.evaluation.seed, config.evaluation.test_seed):
        with pytest.raises(ConfigError, match="no scenes seen before"):
            FreshScenes(seed, 2048).evaluation(config)


def test_fresh_scenes_are_all_scored_whatever_the_run_was_content_with():
    config = TrainConfig.from_params({"evaluation.tolerance": 0.02})
    evaluation = FreshScenes(5, 2048).evaluation(config)
    assert (evaluation.tolerance, evaluation.num_test_scenes) == (0.0, 2048)
