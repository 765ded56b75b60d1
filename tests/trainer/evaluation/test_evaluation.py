"""Evaluations: exact where the estimator is known, the same however computed, always finite."""

import functools
import math
from dataclasses import asdict, fields, replace

import numpy as np
import pytest
import torch

from tests.gpu import needs_gpu
from trainer.config import BASELINES, SceneConfig, TrainConfig
from trainer.covariance import true_factor
from trainer.covariance.covariance import Covariance, normalise
from trainer.estimation.estimates import Estimates
from trainer.estimation.source_number import SOURCE_NUMBERS
from trainer.evaluation import conditions, protocol
from trainer.evaluation.conditions import (
    CHUNK,
    Conditions,
    evaluate,
    evaluate_crb,
    objective,
)
from trainer.evaluation.crb import stochastic_crb
from trainer.evaluation.protocol import (
    classical_estimator,
    evaluate_baselines,
    evaluate_counting,
)
from trainer.evaluation.rows import Evaluation, confusion_lines, table_lines
from trainer.intervals import normal_mean, paired_difference
from trainer.limits import LIMITS
from trainer.networks import build_network
from trainer.scenes.measurement import Scenes

SCENE = SceneConfig()
NOT_MDL = ["1.00", "1.00", "0.00", "1.00"]  # ratio, gap, MDL, AIC
CONDITIONS = Conditions(SCENE, seed=17, snr_db=(-5.0, 0.0), num_scenes=64)


def truth(scenes: Scenes) -> Estimates:
    s = scenes.sources
    told = {rule: s.num_sources + (rule == "mdl") for rule in SOURCE_NUMBERS}
    return Estimates(s.azimuth, s.elevation, s.range_m, s.active, s.active, told)


def centre(scenes: Scenes) -> Estimates:
    s = scenes.sources
    zero = torch.zeros_like(s.azimuth)
    return Estimates(zero, zero, zero + 1, s.active, s.active)


def as_far_as_the_bound(scenes: Scenes) -> Estimates:
    """Return estimates that are off by the root CRB, in a fixed direction."""
    bound = stochastic_crb(scenes)
    s = scenes.sources
    return Estimates(
        s.azimuth + bound.azimuth.sqrt().where(s.active, 0.0),
        s.elevation + bound.elevation.sqrt().where(s.active, 0.0),
        s.range_m,
        s.active,
        s.active,
    )


def assert_plain(row) -> None:
    for name, value in asdict(row).items():
        assert value is None or isinstance(value, str | int) or math.isfinite(value), name


@functools.cache
def evaluated(name: str) -> Evaluation:
    return evaluate(classical_estimator(name, SCENE), name, CONDITIONS)


def test_a_perfect_estimator_has_perfect_rows():
    for row in evaluate(truth, "truth", CONDITIONS).rows:
        assert_plain(row)
        # float32 angles in degrees
        assert row.capped_error == pytest.approx(0, abs=1e-6)
        assert row.success_rate == row.success_rate_3d == row.source_number_accuracy == 1
        assert row.source_number_accuracy_gap == row.source_number_accuracy_aic == 1
        assert row.source_number_accuracy_mdl == 0  # one too many, always
        assert row.num_scenes == 64
        assert row.success_rate_low < 1  # 64 scenes do not prove perfection


def test_one_row_per_snr_and_source_number():
    keys = [(r.snr_db, r.num_sources) for r in evaluate(truth, "truth", CONDITIONS).rows]
    assert keys == [(-5, 1), (-5, 2), (0, 1), (0, 2)]


def test_an_estimator_at_the_bound_is_evaluated_like_the_bound():
    high = replace(CONDITIONS, snr_db=(10.0,), num_sources=(1,))
    (ours,), (bound,) = evaluate(as_far_as_the_bound, "x", high).rows, evaluate_crb(high).rows
    # offsets were rounded to float32 angles, relative 1e-4 of a hundredth of a radian
    assert ours.crb_db == pytest.approx(0, abs=1e-3)
    assert ours.capped_error == pytest.approx(bound.capped_error, rel=1e-3)
    assert ours.rmspe_deg == pytest.approx(bound.rmspe_deg, rel=1e-3)
    assert ours.median_error_deg == pytest.approx(bound.median_error_deg, rel=1e-3)


def test_the_centre_guess_loses_to_every_classical_method():
    """Below the threshold, the guess has the least RMSPE; it must not have the best objective."""
    guess = evaluate(centre, "centre", CONDITIONS, bound=False)
    for name in ("lmmse_music", "lmmse_mvdr", "lmmse_beamformer", "pinv_music"):
        pairs = paired_difference(guess.scenes.capped_error, evaluated(name).scenes.capped_error)
        assert pairs.low > 0
    assert objective(guess.rows, (-5.0, 0.0)).mean > 0.9


def test_the_interval_of_an_objective_is_never_shorter_than_that_of_its_scenes():
    """A scene's errors at different SNRs and K are correlated, but less than fully."""
    rows, scenes = evaluated("lmmse_music").rows, evaluated("lmmse_music").scenes
    found = objective(rows, (-5.0, 0.0))
    scene = scenes.scene_id
    own = normal_mean(np.bincount(scene, scenes.capped_error) / np.bincount(scene))
    assert found.mean == pytest.approx(own.mean)
    assert found.low <= own.low < own.high <= found.high
    assert found.n == own.n


def test_errors_do_not_depend_on_the_size_of_the_chunks(monkeypatch):
    whole = evaluated("lmmse_music")
    monkeypatch.setattr(conditions, "CHUNK", 17)
    parts = evaluate(classical_estimator("lmmse_music", SCENE), "x", CONDITIONS, bound=False)
    for one, other in zip(whole.rows, parts.rows, strict=True):
        assert one.num_scenes == other.num_scenes
        # a float32 argmax may tip to a neighbouring peak in a scene of another batch shape
        assert one.capped_error == pytest.approx(other.capped_error, abs=0.02)
    assert np.median(np.abs(whole.scenes.capped_error - parts.scenes.capped_error)) < 1e-5


def test_more_scenes_begin_with_the_same_scenes(monkeypatch):
    monkeypatch.setattr(conditions, "CHUNK", 32)
    estimate = classical_estimator("lmmse_beamformer", SCENE)
    one = replace(CONDITIONS, snr_db=(0.0,))
    few = evaluate(estimate, "x", replace(one, num_scenes=32), bound=False).scenes
    many = evaluate(estimate, "x", replace(one, num_scenes=40), bound=False).scenes
    first = many.scene_id < 32
    assert (many.scene_id[first] == few.scene_id).all()
    np.testing.assert_array_equal(many.capped_error[first], few.capped_error)


def test_rows_average_their_scenes():
    rows, scenes = evaluated("lmmse_music").rows, evaluated("lmmse_music").scenes
    for row in rows:
        mine = (scenes.snr_db == row.snr_db) & (scenes.num_sources == row.num_sources)
        assert row.capped_error == pytest.approx(scenes.capped_error[mine].mean())
        assert row.capped_error_low <= row.capped_error <= row.capped_error_high
        assert row.success_rate == pytest.approx(scenes.success[mine].mean())
    plain = scenes.rows()
    assert len(plain) == 4 * 64
    assert set(plain[0]) == {f.name for f in fields(scenes)}


def test_baselines_improve_with_snr_and_stay_above_the_bound():
    config = TrainConfig()
    held_out = replace(config.evaluation, report_snr_db=(-10.0, 5.0), num_test_scenes=32)
    scored = evaluate_baselines(replace(config, evaluation=held_out), BASELINES)
    assert [one.scenes.estimator for one in scored] == list(BASELINES)
    bound = {(r.snr_db, r.num_sources): r for r in scored[0].rows}
    for one in scored:
        table = {(r.snr_db, r.num_sources): r for r in one.rows}
        for row in table.values():
            assert_plain(row)
        for count in (1, 2):
            # at -10 dB the region, which the bound does not know, helps
            assert table[5.0, count].capped_error >= bound[5.0, count].capped_error
            assert table[5.0, count].capped_error < table[-10.0, count].capped_error


def test_a_point_stops_once_its_interval_is_tight():
    long = replace(CONDITIONS, num_scenes=2048, snr_db=(10.0,), num_sources=(1,))
    estimate = classical_estimator("lmmse_beamformer", SCENE)
    (row,) = evaluate(estimate, "x", replace(long, tolerance=0.01), bound=False).rows
    assert row.num_scenes < 2048
    # bootstrap and normal half-widths differ by a few per cent
    assert row.capped_error_high - row.capped_error_low < 2.2 * 0.01


def test_a_configuration_names_the_baselines_and_the_tolerance_of_a_point():
    held_out = {"evaluation.num_test_scenes": 384, "evaluation.report_snr_db": [20.0]}
    asked = {"evaluation.baselines": ["crb", "lmmse_beamformer"], "evaluation.tolerance": 0.02}
    config = TrainConfig.from_params(held_out | asked)
    assert TrainConfig.from_params(config.to_params()) == config
    bound, beams, *limits = evaluate_baselines(config, device="cpu", num_sources=(1,))
    assert (bound.rows[0].estimator, beams.rows[0].estimator) == ("crb", "lmmse_beamformer")
    assert {limit.rows[0].estimator for limit in limits} <= set(LIMITS)
    assert beams.rows[0].num_scenes == CHUNK


def test_every_number_of_a_row_is_printed_or_left_blank():
    conditions = replace(CONDITIONS, num_sources=(0, 1))
    head, noise, row, *_ = table_lines(evaluate(truth, "truth", conditions).rows)
    assert head.split()[:4] == ["estimator", "SNR/dB", "K", "scenes"]
    assert noise.split() == ["truth", "-5", "0", "64", "0.000", "[0.000,", "0.000]", *NOT_MDL]
    assert row.split()[-len(NOT_MDL) :] == NOT_MDL


def test_the_confusion_of_a_rule_is_of_the_one_that_the_method_prefers():
    def told(scenes: Scenes) -> Estimates:
        one = torch.ones_like(scenes.sources.num_sources)
        return replace(truth(scenes), source_numbers={"ratio": 2 * one, "evidence": one})

    conditions = replace(CONDITIONS, snr_db=(0.0,), num_sources=(0, 1))
    found = evaluate(told, "told", conditions, bound=False)
    assert [row.source_number_accuracy for row in found.rows] == [0, 1]
    head, noise, lone = confusion_lines([found.scenes])
    assert head.split()[-2:] == ["said", "1"]
    assert noise.split() == ["told", "0", "0", "64", "0.00", "1.00"]
    assert lone.split() == ["told", "0", "1", "64", "0.00", "1.00"]


@pytest.mark.parametrize(
    "name", ["lmmse_music", "pinv_music", "lmmse_mvdr", "lmmse_beamformer", "sparse_music", "sml"]
)
def test_noise_alone_and_a_single_snapshot_are_evaluated(name):
    lonely = replace(SCENE, num_snapshots=1)
    conditions = Conditions(lonely, 3, (0.0,), 8, num_sources=(0, 1, 2))
    noise, *others = evaluate(classical_estimator(name, lonely), name, conditions).rows
    assert (noise.num_sources, noise.capped_error) == (0, 0)
    assert noise.success_rate is noise.rmspe_deg is noise.crb_db is None
    for row in (noise, *others, *evaluate_crb(conditions).rows):
        assert_plain(row)


def test_a_network_that_breaks_down_has_misses_not_nans():
    class Broken(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def forward(self, scenes: Scenes):
            size = scenes.panel.num_elements
            bad = torch.full((scenes.batch_size, size, size), math.nan, dtype=torch.complex64)
            return Covariance(bad, None, torch.zeros(scenes.batch_size))

    config = TrainConfig()
    small = replace(config.evaluation, num_scenes=16)
    for row in protocol.validate(Broken(), replace(config, evaluation=small)).rows:
        assert_plain(row)
        assert (row.capped_error, row.success_rate) == (1, 0)


def test_an_objective_without_rows_and_an_unknown_method_are_refused():
    with pytest.raises(ValueError, match="needs rows at its SNRs"):
        objective([], (-5.0,))
    with pytest.raises(ValueError, match="lmmse_musik"):
        classical_estimator("lmmse_musik", SCENE)


@needs_gpu
@pytest.mark.parametrize("name", ["lmmse_music", "lmmse_mvdr", "sparse_beamformer", "sml"])
def test_a_gpu_finds_what_a_cpu_finds(name):
    here = replace(CONDITIONS, snr_db=(5.0,))
    there = replace(here, device="cuda")
    ours = evaluate(classical_estimator(name, SCENE), name, here).scenes
    theirs = evaluate(classical_estimator(name, SCENE, "cuda"), name, there).scenes
    # float32 sums in another order may tip the argmax of a grid in a scene or two
    assert np.median(np.abs(ours.capped_error - theirs.capped_error)) < 1e-4
    assert abs(ours.capped_error.mean() - theirs.capped_error.mean()) < 0.02


def test_a_point_never_stops_on_equal_errors():
    conditions = replace(CONDITIONS, num_scenes=2 * CHUNK, tolerance=0.5, num_sources=(1,))
    for row in evaluate(truth, "truth", conditions).rows:
        assert row.capped_error_low == row.capped_error_high
        assert row.num_scenes == conditions.num_scenes


class Fixed(torch.nn.Module):
    """A network that predicts a function of the scenes."""

    def __init__(self, covariance) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.covariance = covariance

    def forward(self, scenes: Scenes) -> Covariance:
        return self.covariance(scenes)


COUNTED = TrainConfig.from_params(
    {"evaluation.report_snr_db": (0.0,), "evaluation.num_test_scenes": 24}
)


def test_the_true_covariance_tells_k_and_the_places_by_every_rule_of_noise():
    network = Fixed(lambda scenes: normalise(factor=true_factor(scenes), eps_psd=0.0))
    rows = evaluate_counting(network, COUNTED)
    assert len(rows) == 2 * 24
    for row in rows:
        assert row["source_number_mdl"] == row["source_number_aic"] == row["num_sources"]
        # nothing is missed, so that GOSPA is the sum over sources of the capped error
        whole = row["capped_error"] * row["num_sources"]
        assert row["gospa_mdl"] == pytest.approx(whole, abs=1e-6)  # floats of networks


def test_a_covariance_without_a_signal_misses_every_source():
    white = torch.eye(SCENE.num_elements, dtype=torch.complex64)
    network = Fixed(
        lambda scenes: normalise(matrix=white.expand(scenes.batch_size, -1, -1), eps_psd=0.0)
    )
    for row in evaluate_counting(network, COUNTED):
        assert row["source_number_mdl"] == 0
        assert row["gospa_mdl"] == row["num_sources"] / 2
        assert row["source_number_half"] == 2  # all eigenvalues are the largest


def test_counting_scores_the_scenes_that_a_network_is_scored_on():
    network = build_network(COUNTED)
    rows = evaluate_counting(network, COUNTED)
    scenes = protocol.evaluate_network(network, COUNTED).scenes
    assert [row["scene_id"] for row in rows] == scenes.scene_id.tolist()
    np.testing.assert_array_equal([row["capped_error"] for row in rows], scenes.capped_error)
    ratio = [row["source_number_ratio"] for row in rows]
    np.testing.assert_array_equal(ratio, scenes.source_number)
