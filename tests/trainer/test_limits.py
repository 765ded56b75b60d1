"""Kept limits: found again, refused where poor, and rows of the evaluation's own scenes."""

import numpy as np
import pytest

from trainer import limits
from trainer.config import ConfigError, EvaluationConfig, SceneConfig, TrainConfig
from trainer.evaluation import evaluate_baselines
from trainer.limits import KeptLimits, LimitScenes, fault_of, limit_cache, limit_tables

SCENE = SceneConfig(num_horizontal=3, num_vertical=3)
CONFIG = TrainConfig(
    scene=SCENE,
    evaluation=EvaluationConfig(test_seed=77, report_snr_db=(-5.0, 0.0, 10.0), num_test_scenes=12),
)
KEPT = KeptLimits(SCENE, 77)


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return limit_cache()


def fair(size: int = 16, *, draws: float = 900.0, shift: float = 0.0) -> LimitScenes:
    """Return scenes whose realised error exceeds the expected one by `shift` on average."""
    error = np.linspace(0.1, 0.5, size)
    noise = np.where(np.arange(size) % 2, 0.05, -0.05)
    return LimitScenes(error, error - noise - shift, np.full(size, draws))


def keep(snr_db: float, count: int, scenes: LimitScenes) -> None:
    KEPT.save(limit_cache(), snr_db, count, {"shape": scenes, "blind": scenes})


def test_a_point_is_found_as_it_was_kept_and_by_its_law_and_seed_alone():
    keep(-5.0, 1, fair())
    found = KEPT.point(-5.0, 1)["shape"]
    np.testing.assert_allclose(found.error, fair().error, atol=1e-4)
    np.testing.assert_allclose(found.expected, fair().expected, atol=1e-4)
    assert KEPT.point(0.0, 1) == {}
    assert KEPT.point(-5.0, 2) == {}
    others = (KeptLimits(SCENE, 78), KeptLimits(SceneConfig(num_horizontal=3), 77))
    assert [other.point(-5.0, 1) for other in others] == [{}, {}]


def test_a_file_of_another_law_counts_as_nothing():
    keep(-5.0, 1, fair())
    (path,) = limit_cache().glob("*/*.json")
    path.write_text(path.read_text().replace('"num_antennas": 12', '"num_antennas": 13'))
    assert KEPT.point(-5.0, 1) == {}


def test_points_that_are_poorly_sampled_or_contradict_themselves_are_refused():
    def faults(shape: LimitScenes, blind: LimitScenes) -> list[str]:
        point = {"shape": shape, "blind": blind}
        return [str(fault_of(point, observer)) for observer in point]

    few, biased = fair(draws=20.0), fair(shift=0.1)
    assert faults(fair(), fair()) == ["None", "None"]
    assert faults(fair(), biased) == ["None", "None"]  # expects over all SNRs
    assert all("standard errors" in said for said in faults(biased, fair()))
    one, other = faults(fair(), few)
    assert one == "None"
    assert "draws" in other
    one_poor = LimitScenes(fair(200).error, fair(200).expected, np.r_[10.0, np.full(199, 900.0)])
    assert faults(one_poor, one_poor) == ["None", "None"]


def test_rows_cover_the_evaluations_own_scenes_and_only_whole_snrs():
    for snr_db, count in ((-5.0, 1), (-5.0, 2), (0.0, 1), (10.0, 1)):
        keep(snr_db, count, fair())
    keep(10.0, 2, fair(draws=5.0))
    tables = limit_tables("limit_shape", CONFIG)
    assert [(r["snr_db"], r["num_sources"]) for r in tables["evaluations"]] == [
        (-5.0, 1),
        (-5.0, 2),
    ]
    assert {row["num_scenes"] for row in tables["evaluations"]} == {12}
    assert tables["evaluations"][0]["capped_error"] == pytest.approx(
        fair().error[:12].mean(), abs=1e-4
    )
    assert [row["scene_id"] for row in tables["scenes"]] == [*range(12), *range(12)]


def test_where_nothing_is_kept_there_are_no_rows_and_the_command_says_how():
    assert limit_tables("limit_blind", CONFIG) == {"evaluations": [], "scenes": []}
    assert KEPT.command() == (
        "python -m trainer limit --set scene.num_horizontal=3 scene.num_vertical=3 "
        "evaluation.test_seed=77"
    )


def test_a_limit_is_left_out_of_what_is_evaluated_where_it_has_no_row_for_k():
    """Noise alone has no limit; classical methods are asked nonetheless."""
    for snr_db, count in ((-5.0, 1), (-5.0, 2)):
        keep(snr_db, count, fair())
    asked = {
        counts: {each.scenes.estimator for each in evaluate_baselines(CONFIG, num_sources=counts)}
        for counts in ((0,), (2,))
    }
    assert asked[2,] - asked[0,] == {"limit_shape", "limit_blind"}
    assert asked[0,] == set(CONFIG.evaluation.baselines)


def test_a_damaged_file_is_named():
    keep(-5.0, 1, fair())
    (path,) = limit_cache().glob("*/*.json")
    path.write_text("{")
    with pytest.raises(ConfigError, match="Delete it"):
        KEPT.point(-5.0, 1)


def test_the_packaged_limits_are_of_the_default_scenes_and_without_fault():
    """Every point is sampled well enough, and realised and expected errors agree."""
    folders = {path.parent.name for path in limits.PACKAGED.glob("*/*.json")}
    default = KeptLimits(SceneConfig(), EvaluationConfig().test_seed)
    assert folders == {default.digest}
    for snr_db in EvaluationConfig().report_snr_db:
        for count in (1, 2):
            point = default.point(snr_db, count)
            assert set(point) == {"shape", "blind"}
            for observer, scenes in point.items():
                assert fault_of(point, observer) is None
                assert len(scenes) >= EvaluationConfig().num_test_scenes


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["sml", "pinv_music", "lmmse_music", "lmmse_mvdr", "lmmse_beamformer"]
)
def test_no_estimator_is_below_the_limit_at_any_snr_and_number_of_sources(name):
    """Paired by scene, by 3.5 standard errors: a chance of one in 60 over all 70 differences."""
    config = TrainConfig.from_params({"evaluation.num_test_scenes": 32})
    found = {
        (row["snr_db"], row["num_sources"], row["scene_id"]): -row["capped_error"]
        for row in limit_tables("limit_shape", config)["scenes"]
    }
    assert len(found) == 7 * 2 * 32
    (estimated,) = evaluate_baselines(config, [name])
    for row in estimated.scenes.rows():
        found[row["snr_db"], row["num_sources"], row["scene_id"]] += row["capped_error"]
    surplus = np.array(list(found.values())).reshape(14, 32)
    error = surplus.std(axis=1, ddof=1) / np.sqrt(32)
    assert (surplus.mean(axis=1) > -3.5 * error).all()
