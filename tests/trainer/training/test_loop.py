"""Laws of the training loop: deterministic, resumable, and never a step on a bad number."""

import ast
import dataclasses
import pickle
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import pytest
import torch

import trainer.training.loop
import trainer.training.terms
from trainer.config import MARGIN_FIELDS, ConfigError, TrainConfig
from trainer.failure import Cause, Diverged, Failure
from trainer.training.checkpoint import TrainState
from trainer.training.loop import train

SHORT = {
    "epochs": 3,
    "steps_per_epoch": 3,
    "batch_size": 8,
    "network.width": 8,
    "network.depth": 2,
    "evaluation.num_scenes": 4,
    "evaluation.num_test_scenes": 4,
    "evaluation.objective_snr_db": (0.0,),
    "evaluation.report_snr_db": (0.0,),
    "device": "cpu",
}
SUBSPACE = {
    "eigengap.weight": 0.5,
    "eigengap.definition": "subspace",
    "eigengap.margin_subspace": 0.0,
}


def config(**params) -> TrainConfig:
    return TrainConfig.from_params(SHORT | {k.replace("__", "."): v for k, v in params.items()})


def rows(reports) -> list[dict]:
    """Return the rows of reports, without the time they took."""
    return [{k: v for k, v in r.row().items() if k != "seconds"} for r in reports]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A training's reports, and a file with its state after the first epoch."""
    path = tmp_path_factory.mktemp("whole") / "state.pt"
    reports = []
    for report in train(config()):
        if report.epoch == 1:
            report.state.save(path)
        reports.append(report)
    return reports, path


def test_equal_configurations_give_equal_trainings_and_seeds_matter(whole):
    assert rows(train(config())) == rows(whole[0])
    assert rows(train(config(seed=1))) != rows(whole[0])


def test_a_training_resumed_from_a_file_goes_on_as_if_it_had_never_stopped(whole):
    reports, path = whole
    rest = train(config(), resume=TrainState.load(path))
    assert rows(rest) == rows(reports[1:])


def test_a_state_of_another_configuration_is_refused(whole):
    with pytest.raises(ConfigError, match="under the configuration it began with"):
        next(train(config(seed=1), resume=TrainState.load(whole[1])))


def test_a_state_of_another_networks_code_is_refused(whole):
    state = TrainState.load(whole[1])
    renamed = {f"new.{name}": weights for name, weights in state.network.items()}
    with pytest.raises(ConfigError, match="with the code it began with"):
        next(train(config(), resume=replace(state, network=renamed)))


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", None])
def test_a_damaged_checkpoint_is_refused_by_name(content, tmp_path):
    path = tmp_path / "state.pt"
    if content is None:
        torch.save({"other": 1}, path)
    else:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"state\.pt"):
        TrainState.load(path)


def test_every_reported_number_is_finite_and_the_last_epoch_has_the_evaluation(whole):
    reports, _ = whole
    for report in reports:
        assert all(torch.isfinite(torch.tensor(list(report.losses.values()))))
        numbers = [v for v in report.row().values() if isinstance(v, float)]
        assert all(torch.isfinite(torch.tensor(numbers)))
    assert [bool(r.evaluation) for r in reports] == [False, False, True]
    assert [r.epoch for r in reports] == [1, 2, 3]
    assert [r.step for r in reports] == [3, 6, 9]


def test_the_objective_is_the_mean_of_its_errors_by_scene(whole):
    for report in whole[0]:
        assert len(report.scene_errors) == config().evaluation.num_scenes
        assert fmean(report.scene_errors) == pytest.approx(report.capped_error, rel=1e-12)
        assert report.row()["validation_scenes"] == pytest.approx(report.scene_errors, abs=5.1e-5)


def poisoned(monkeypatch, name: str, at_step: int) -> None:
    """Put a NaN into one field of the scenes of one training step."""
    honest = trainer.training.loop.simulate
    calls = iter(range(1, 1000))

    def simulate(*args, **kwargs):
        scenes = honest(*args, **kwargs)
        if next(calls) == at_step:
            bad = getattr(scenes, name).clone()
            bad[0, 0, 0] = float("nan")
            return dataclasses.replace(scenes, **{name: bad})
        return scenes

    monkeypatch.setattr(trainer.training.loop, "simulate", simulate)


@pytest.mark.parametrize("name", ["snapshots", "channel", "codes"])
def test_a_nan_in_the_data_is_named_before_a_step_is_taken(name, monkeypatch):
    poisoned(monkeypatch, name, at_step=5)
    reports = []
    with pytest.raises(Diverged) as caught:
        reports.extend(train(config()))
    failure = caught.value.failure
    assert failure.cause is Cause.NONFINITE_DATA
    assert (failure.term, failure.tensor) == ("input", name)
    assert (failure.step, failure.epoch) == (4, 2)
    assert failure.min_eigengap is None or failure.min_eigengap >= 0


def bad_backward(monkeypatch, value: float) -> None:
    """Make the eigengap term's derivative `value`, and leave the term itself right."""

    class Bad(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            return torch.full_like(gradient, value)

    honest = trainer.training.terms.eigengap_loss
    monkeypatch.setattr(
        trainer.training.terms, "eigengap_loss", lambda *a, **k: Bad.apply(honest(*a, **k))
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_bad_gradient_names_the_term_and_a_tensor_and_no_weight_changes(value, monkeypatch):
    bad_backward(monkeypatch, value)
    gap = {"eigengap.weight": 0.1, "eigengap.definition": "gap", "eigengap.margin": 0.5}
    run = trainer.training.loop.TrainingLoop(config(**gap), torch.device("cpu"))
    before = {k: v.clone() for k, v in run.network.state_dict().items()}
    with pytest.raises(Diverged) as caught:
        run.step()
    failure = caught.value.failure
    assert failure.cause is Cause.NONFINITE_GRADIENT
    assert failure.term == "eigengap"
    assert failure.tensor in dict(run.network.named_parameters())
    assert failure.min_eigengap is not None
    assert all(torch.equal(v, before[k]) for k, v in run.network.state_dict().items())


def test_finite_gradients_with_an_infinite_norm_are_a_cause_of_their_own(monkeypatch):
    bad_backward(monkeypatch, 1e35)
    gap = {"eigengap.weight": 0.1, "eigengap.definition": "gap", "eigengap.margin": 0.5}
    with pytest.raises(Diverged) as caught:
        list(train(config(**gap)))
    assert caught.value.failure.cause is Cause.GRADIENT_OVERFLOW


def test_a_non_finite_term_is_named(monkeypatch):
    honest = trainer.training.terms.eigengap_loss
    monkeypatch.setattr(
        trainer.training.terms, "eigengap_loss", lambda *a, **k: honest(*a, **k) * float("inf")
    )
    with pytest.raises(Diverged) as caught:
        list(train(config(**SUBSPACE)))
    assert caught.value.failure.cause is Cause.NONFINITE_LOSS
    assert caught.value.failure.term == "eigengap"


def test_an_eigensolver_that_gives_up_is_a_divergence_not_a_crash(monkeypatch):
    def gives_up(*args, **kwargs):
        raise torch.linalg.LinAlgError("did not converge")

    monkeypatch.setattr(trainer.training.terms, "eigengap_loss", gives_up)
    with pytest.raises(Diverged) as caught:
        list(train(config(**SUBSPACE)))
    assert caught.value.failure.cause is Cause.SPECTRAL_BREAKDOWN
    assert "did not converge" in caught.value.failure.message


def test_a_divergence_survives_pickling_and_says_what_to_do():
    failure = Failure(Cause.NONFINITE_GRADIENT, "eigengap", "w", 3, 1, 1e-9)
    again = pickle.loads(pickle.dumps(Diverged(failure)))
    assert again.failure == failure
    assert "spectral.backend" in str(again)


NATIVE = {"network.kind": "factor", "network.rank": 8, "covariance.blend_bound": 0.3}


def test_the_native_projector_derivative_diverges_where_the_exact_one_trains():
    """Loading makes the noise eigenvalues exact ties; the native backward divides by zero."""
    params = NATIVE | SUBSPACE | {"eps_psd": 0.1, "epochs": 1, "steps_per_epoch": 9}
    with pytest.raises(Diverged) as caught:
        list(train(config(**params, **{"spectral.backend": "eigh"})))
    assert caught.value.failure.cause is Cause.NONFINITE_GRADIENT
    assert caught.value.failure.term == "eigengap"
    for backend in ("gram", "exact"):
        assert len(list(train(config(**params, **{"spectral.backend": backend})))) == 1


PARTS = {
    f.name for f in dataclasses.fields(TrainConfig) if dataclasses.is_dataclass(f.default_factory)
}


def reads(node: ast.AST, parts: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Yield (part, field) of every attribute read through a name or attribute of that part."""
    if isinstance(node, ast.Attribute):
        holder = node.value
        if isinstance(holder, ast.Attribute) and holder.attr in PARTS:
            yield holder.attr, node.attr
        elif isinstance(holder, ast.Name) and holder.id in parts:
            yield parts[holder.id], node.attr
        elif "config" in ast.unparse(holder):
            yield "", node.attr
    for child in ast.iter_child_nodes(node):
        yield from reads(child, parts)


@pytest.mark.parametrize(
    ("policy", "column"), [("skip_sample", "skipped_samples"), ("proxy", "replaced_samples")]
)
def test_failed_samples_are_counted_in_the_epoch_that_they_failed_in(policy, column):
    """A loading of 10 % makes ties in the noise floor, where native projectors have none."""
    settings = {
        "network__kind": "factor",
        "network__rank": 4,
        "covariance__blend_bound": 0.0,
        "eps_psd": 0.1,
        "eigengap__on_failure": policy,
        "epochs": 2,
    }
    other = "replaced_samples" if policy == "skip_sample" else "skipped_samples"
    failed, healthy = (
        rows(train(config(**SUBSPACE, **settings, spectral__backend=backend)))
        for backend in ("eigh", "exact")
    )
    assert [row[column] for row in healthy] == [0, 0]
    assert all(0 < row[column] <= 3 * 8 for row in failed)
    assert [row[other] for row in (*healthy, *failed)] == [0, 0, 0, 0]


def test_every_field_of_a_configuration_is_read_by_code_outside_it():
    folder = Path(trainer.__file__).parent
    names = {"scene": "scene", "eigengap": "eigengap", "evaluation": "evaluation"}
    found: set[tuple[str, str]] = set()
    for file in folder.rglob("*.py"):
        if file.parent.name != "config":
            # where only a scene or a network configuration is handed in, it is called `config`
            own = {"simulation.py": "scene", "channel.py": "scene", "placement.py": "scene"}
            own |= {"codes.py": "scene", "power_map.py": "network"}
            parts = names | ({"config": own[file.name]} if file.name in own else {})
            found |= set(reads(ast.parse(file.read_text()), parts))
    wanted = set()
    for field in dataclasses.fields(TrainConfig):
        if field.name in PARTS:
            part = [f.name for f in dataclasses.fields(field.default_factory)]
            # the margins are read by way of the one that is active
            part = [n for n in part if n not in MARGIN_FIELDS.values()]
            wanted |= {(field.name, n) for n in part}
        else:
            wanted.add(("", field.name))
    assert ("eigengap", "active_margin") in found
    assert wanted - found == set()
