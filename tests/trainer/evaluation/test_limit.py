"""The limit: it resumes, it is what it expects, and no estimator has less."""

import dataclasses

import numpy as np
import pytest

from trainer import limits
from trainer.__main__ import main
from trainer.config import ConfigError, EvaluationConfig, SceneConfig, TrainConfig
from trainer.evaluation import distance_to_limit, evaluate_baselines, extend_limit, limit_lines
from trainer.intervals import normal_mean
from trainer.limits import KeptLimits, fault_of, limit_cache
from trainer.posterior import sampler

SMALL = SceneConfig(num_horizontal=4, num_vertical=3, num_antennas=6, num_snapshots=8)
EVALUATION = EvaluationConfig(
    test_seed=78, report_snr_db=(0.0,), objective_snr_db=(0.0,), num_test_scenes=16
)
CONFIG = TrainConfig(scene=SMALL, evaluation=EVALUATION)

ALL_DRAWS = {"DRAWS": sampler.DRAWS, "ROUND_DRAWS": sampler.ROUND_DRAWS}


@pytest.fixture(autouse=True)
def few_draws(monkeypatch, tmp_path):
    """Sample a quarter of the draws, and keep limits in a folder of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(limits, "PACKAGED", tmp_path / "none")
    monkeypatch.setattr(sampler, "DRAWS", 1024)
    monkeypatch.setattr(sampler, "ROUND_DRAWS", 768)


def settings(config: TrainConfig) -> list[str]:
    names = ("num_horizontal", "num_vertical", "num_antennas", "num_snapshots", "max_sources")
    scene = [f"scene.{name}={getattr(config.scene, name)}" for name in names]
    return [*scene, "evaluation.test_seed=78", "device=cpu"]


def test_the_command_computes_keeps_resumes_and_gives_rows(capsys):
    one = dataclasses.replace(CONFIG, scene=dataclasses.replace(SMALL, max_sources=1))
    words = ["limit", "--set", *settings(one), "--snr-db", "0"]
    with pytest.raises(
        ConfigError, match=r"limit --set scene\.num_horizontal=4 scene.num_vertical=3"
    ):
        evaluate_baselines(one, ["limit_shape"])
    assert main([*words, "--num-scenes", "8"]) == 0
    (path,) = limit_cache().glob("*/k1_0dB.json")
    written = path.stat().st_mtime_ns
    assert main([*words, "--num-scenes", "8"]) == 0  # kept: nothing is computed
    assert path.stat().st_mtime_ns == written
    half = KeptLimits(one.scene, 78).point(0.0, 1)["shape"].error
    assert main([*words, "--num-scenes", "16"]) == 0
    whole = KeptLimits(one.scene, 78).point(0.0, 1)["shape"].error
    np.testing.assert_array_equal(whole[:8], half)
    assert "limit_blind" in capsys.readouterr().out
    by_name = {x.scenes.estimator: x for x in evaluate_baselines(one)}
    limit, music = by_name["limit_shape"], by_name["lmmse_music"]
    assert limit.rows[0].capped_error == pytest.approx(whole.mean())
    surplus = distance_to_limit(one, music.scenes)
    assert surplus.n == 16
    assert surplus.mean == pytest.approx(
        music.rows[0].capped_error - limit.rows[0].capped_error, abs=1e-6
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--num-sources", "3"], "1 <= --num-sources <= 2"),
        (["--num-scenes", "0"], "--num-scenes >= 1"),
        (["--snr-db", "nan"], "report_snr_db"),
        (["--snr-db", "inf"], "report_snr_db"),
        (["--set", "scene.power_spread_db=3"], "equal, uncorrelated sources"),
    ],
)
def test_bad_usage_is_one_line_and_exit_code_2(words, said, capsys):
    assert main(["limit", *words]) == 2
    assert said in capsys.readouterr().err


def test_a_poor_point_prints_no_number(capsys, monkeypatch):
    monkeypatch.setattr(limits, "LEAST_DRAWS", 1e9)
    one = dataclasses.replace(CONFIG, scene=dataclasses.replace(SMALL, max_sources=1))
    words = ["limit", "--set", *settings(one), "--snr-db", "0", "--num-scenes", "8"]
    assert main(words) == 1
    lines = capsys.readouterr().out.splitlines()
    assert "not known" in lines[0]
    assert "[" not in lines[0]


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2])
def test_realised_and_expected_error_agree_and_every_estimator_has_more(count, monkeypatch):
    for name, draws in ALL_DRAWS.items():
        monkeypatch.setattr(sampler, name, draws)
    scenes = 48 if count == 1 else 24
    config = dataclasses.replace(
        CONFIG, evaluation=dataclasses.replace(EVALUATION, num_test_scenes=scenes)
    )
    kept = KeptLimits(SMALL, 78)
    for each in (1, 2) if count == 2 else (1,):
        *_, point = extend_limit(kept, 0.0, each, scenes, start={}, folder=limit_cache())
    assert len(limit_lines(0.0, count, point)) == 2
    assert fault_of(point, "shape") is None
    # a single scene of 24 is already more than the share that is asked of hundreds
    assert (point["blind"].draws < limits.LEAST_DRAWS).sum() <= 1
    surplus = normal_mean(point["shape"].error - point["shape"].expected)
    assert abs(surplus.mean) < 3.5 / 1.96 * (surplus.high - surplus.mean)
    if count == 2:
        for one in evaluate_baselines(config, ["sml", "lmmse_beamformer", "lmmse_music"]):
            assert distance_to_limit(config, one.scenes).high > 0
