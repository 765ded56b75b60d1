"""A replay equals the recorded training bit for bit, and prints the step that failed."""

import json
import math

import pytest
import torch

from tests.poisoned import EXACT_TIES
from trainer.__main__ import main
from trainer.config import TrainConfig
from trainer.failure import Diverged
from trainer.training.loop import TrainingLoop, train
from trainer.training.replay import CUT_SHORT
from trainer.training.step_inspection import inspect_step

SMALL = {
    "epochs": 2,
    "steps_per_epoch": 3,
    "batch_size": 16,
    "network.width": 8,
    "evaluation.num_scenes": 4,
    "evaluation.num_test_scenes": 4,
    "evaluation.objective_snr_db": (0.0,),
    "evaluation.report_snr_db": (0.0,),
    "device": "cpu",
}
TIES = EXACT_TIES | {"spectral.backend": "eigh"}


def run_with(tmp_path, params, **ending):
    config = TrainConfig.from_params(SMALL | params)
    run = tmp_path / "run"
    for folder in ("configs", "endings"):
        (run / folder).mkdir(parents=True)
    (run / "configs" / "t0000.json").write_text(json.dumps({"params": config.to_params()}))
    if ending:  # it has ended with an earlier one
        endings = {"t9999": {"outcome": "completed"}, "t0000": {"failure": None} | ending}
        (run / "endings" / "t9999.json").write_text(json.dumps(endings))
    return str(run), config


def diverging(tmp_path):
    with pytest.raises(Diverged) as raised:
        list(train(TrainConfig.from_params(SMALL | TIES)))
    failure = raised.value.failure.as_dict()
    return run_with(tmp_path, TIES, failure=failure, outcome="diverged")[0]


@pytest.fixture(scope="module")
def reached():
    """Recorded numbers of each epoch, by the epoch."""
    names = ("epoch", "loss_total", "gradient_norm", "validation_capped_error")
    rows = [report.row() for report in train(TrainConfig.from_params(SMALL))]
    return {row["epoch"]: {name: row[name] for name in names} for row in rows}


def test_a_real_divergence_is_reproduced_and_its_tensors_are_named(tmp_path, capsys):
    assert main(["replay", diverging(tmp_path), "t0000"]) == 0
    said = capsys.readouterr().out
    assert "reproduced, bit for bit" in said
    for what in ("d eigengap / d F [16x36x24]: ", "eigengap 0.", "covariance 0.", "K = "):
        assert what in said
    assert "d covariance" not in said  # its gradients are well


def test_the_inspected_step_is_the_one_that_failed():
    training = TrainingLoop(TrainConfig.from_params(SMALL | TIES), torch.device("cpu"))
    with pytest.raises(Diverged) as raised:
        list(training.reports())
    failure = raised.value.failure
    weights = {n: p.detach().clone() for n, p in training.network.named_parameters()}
    inspection = inspect_step(training)
    assert inspection.step == failure.step
    assert all(torch.equal(p, weights[n]) for n, p in training.network.named_parameters())
    names = [tensor.name for tensor in inspection.offending]
    assert f"d {failure.term} / d {failure.tensor}" in names
    held = next(tensor for tensor in inspection.offending if tensor.name == "d eigengap / d F")
    assert held.samples
    assert held.shape == (16, 36, 24)
    # the sample at fault comes first, and it holds a tie away from the border
    border = inspection.borders[0]
    assert border.sample in held.samples
    assert border.gap > 1e-4
    assert border.closest[1] < 1e-9
    shown = dict(enumerate(border.eigenvalues, border.first))
    k = border.num_sources
    assert shown[k] - shown[k + 1] == pytest.approx(border.gap, rel=1e-4)  # complex64 and loading


def test_inspection_computes_the_same_terms_as_the_step():
    """On a healthy step."""
    config = TrainConfig.from_params(SMALL | TIES | {"spectral.backend": "exact"})
    training = TrainingLoop(config, torch.device("cpu"))
    training.draw()
    before = training.generator.get_state()
    inspection = inspect_step(training)
    assert torch.equal(training.generator.get_state(), before)
    assert not inspection.offending
    again = TrainingLoop(config, torch.device("cpu"))
    seen = again.step()
    for name in ("total", "covariance", "eigengap"):
        assert inspection.terms[name] == pytest.approx(seen[name], rel=1e-6)  # single precision
    by_term = {
        n.name: n.norm for n in inspection.tensors if n.name.startswith("d covariance / d ")
    }
    assert len(by_term) > 3
    assert math.hypot(*by_term.values()) > 0


def test_a_finished_trial_is_compared_with_its_last_epoch(reached, tmp_path, capsys):
    run, _ = run_with(tmp_path, {}, outcome="completed", reached=reached[2])
    assert main(["replay", run, "t0000"]) == 0
    assert "bit for bit" in capsys.readouterr().out


@pytest.mark.parametrize("outcome", CUT_SHORT)
def test_a_trial_that_was_cut_short_is_trained_as_far_as_it_got(
    outcome, reached, tmp_path, capsys
):
    run, _ = run_with(tmp_path, {}, outcome=outcome, reached=reached[1])
    assert main(["replay", run, "t0000"]) == 0
    said = capsys.readouterr().out
    assert f"recorded: {outcome} after 1 epochs" in said
    assert "replayed: trained 1 epochs" in said
    assert "epoch   2" not in said


def test_one_different_bit_is_not_a_reproduction(reached, tmp_path, capsys):
    other = reached[1] | {"loss_total": math.nextafter(reached[1]["loss_total"], 2)}
    run, _ = run_with(tmp_path, {}, outcome="stopped", reached=other)
    assert main(["replay", run, "t0000"]) == 1
    assert "NOT reproduced: loss_total of epoch 1" in capsys.readouterr().out


def test_any_step_can_be_inspected(tmp_path, capsys):
    run, _ = run_with(tmp_path, {})
    assert main(["replay", run, "t0000", "--step", "4"]) == 0
    said = capsys.readouterr().out
    assert "after 4 steps" in said
    assert "all tensors are finite; the largest gradients" in said
    assert main(["replay", run, "t0000", "--step", "6"]) == 2
    assert "0 ... 5" in capsys.readouterr().err


def test_a_step_that_is_never_reached_shows_the_divergence_instead(tmp_path, capsys):
    assert main(["replay", diverging(tmp_path), "t0000", "--step", "4"]) == 1
    assert "diverged before step 4" in capsys.readouterr().out
