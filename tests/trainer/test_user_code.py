"""A user's network and loss: run as recorded, refused by name if they break the contract."""

import pickle
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from trainer import user_code
from trainer.__main__ import main
from trainer.config import ConfigError, TrainConfig
from trainer.failure import Cause, Diverged
from trainer.networks import build_network
from trainer.scenes import simulate
from trainer.training import TrainingLoop, loss_terms, train
from trainer.training.checkpoint import restore_network
from trainer.training.terms import own_term
from trainer.user_code import (
    CodeError,
    Source,
    bind,
    give_texts,
    load,
    place_in,
    require_unchanged,
    source_of,
    with_hashes,
)

CODE = """
import torch
from torch import nn
from trainer.covariance import lmmse, normalise

class Mine(nn.Module):
    def __init__(self, config, *, power=1.0):
        super().__init__()
        self.eps_psd = config.eps_psd
        self.power = nn.Parameter(torch.tensor(float(power)))

    def forward(self, scenes):
        matrix = lmmse(scenes)
        matrix = matrix.mT @ matrix.conj()
        eye = torch.eye(matrix.shape[-1])
        made = normalise(matrix=matrix + self.power.square() * eye, eps_psd=self.eps_psd)
        return made

def spread(covariance, scenes, *, scale=1.0):
    return scale * covariance.dense().abs().square().sum((-2, -1))
"""
SMALL = {
    "epochs": 1,
    "steps_per_epoch": 2,
    "batch_size": 4,
    "evaluation.num_scenes": 4,
    "evaluation.num_test_scenes": 4,
    "evaluation.report_snr_db": [0.0],
}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(CODE)
    return path


def config(file, **more) -> TrainConfig:
    own = {"network.kind": f"{file}:Mine", "network.args.power": 0.5}
    return TrainConfig.from_params(with_hashes(SMALL | own | more))


def scenes_of(config, count=3):
    generator = torch.Generator().manual_seed(1)
    return simulate(config.scene, count, snr_db=(0.0, 0.0), generator=generator, device="cpu")


def test_arguments_survive_json_and_the_hash_is_part_of_the_digest(file):
    ours = config(file, **{"loss.term": f"{file}:spread", "loss.weight": 0.5})
    assert TrainConfig.from_params(ours.to_params()) == ours
    assert ours.network.args == (("power", 0.5),)
    assert hash(ours) == hash(TrainConfig.from_params(ours.to_params()))
    file.write_text(CODE + "# changed\n")
    assert config(file).digest != ours.digest


def test_a_configuration_without_code_of_ones_own_has_the_parameters_that_it_had():
    assert not [n for n in TrainConfig().to_params() if n.startswith("loss") or "sha256" in n]
    off = TrainConfig.from_params({"loss.weight": 0.0})
    assert off.digest == TrainConfig().digest


def test_its_arguments_reach_the_constructor_and_it_learns(file):
    ours = config(file)
    network = build_network(ours)
    assert network.power.item() == 0.5
    (report,) = train(ours)
    assert report.losses.keys() == {"total", "covariance"}
    assert float(report.state.network["power"]) != 0.5


def test_its_loss_is_a_further_weighted_term(file):
    term = {"loss.term": f"{file}:spread", "loss.weight": 0.5, "loss.args.scale": 2.0}
    ours = config(file, **term)
    scenes, network = scenes_of(ours), build_network(ours)
    covariance = network(scenes)
    terms = loss_terms(covariance, scenes, ours)
    power = covariance.dense().abs().square().sum((-2, -1)).mean()
    torch.testing.assert_close(terms.values["spread"], 2 * power)
    torch.testing.assert_close(
        terms.total(ours), terms.values["covariance"] + 0.5 * terms.values["spread"]
    )
    (report,) = train(ours)
    assert report.row()["loss_own"] == report.losses["spread"]


def test_a_covariance_that_is_not_a_number_diverges_and_is_named(file):
    file.write_text(
        CODE.replace("return made", "return normalise(matrix=made.matrix / 0, eps_psd=0)")
    )
    with pytest.raises(Diverged) as diverged:
        next(train(config(file)))
    failure = diverged.value.failure
    assert (failure.cause, failure.term, failure.tensor) == (
        Cause.NONFINITE_LOSS,
        "covariance",
        "matrix",
    )


VALIDATED_ONLY = """if not self.training:
            made = type(made)({}, None, made.shift)
        return made"""


def test_what_is_not_finite_in_validation_only_diverges_and_is_named(file):
    broken = VALIDATED_ONLY.format("made.matrix / 0")
    file.write_text(CODE.replace("return made", broken))
    with pytest.raises(Diverged, match="output in validation was not") as diverged:
        next(train(config(file)))
    failure = diverged.value.failure
    assert (failure.cause, failure.term, failure.tensor, failure.step, failure.epoch) == (
        Cause.NONFINITE_LOSS,
        "covariance",
        "matrix",
        2,
        1,
    )


def test_a_last_step_that_breaks_our_network_diverges():
    huge = {"network.kind": "unrolled", "network.stages": 1, "optimizer.learning_rate": 1e30}
    with pytest.raises(Diverged) as diverged:
        next(train(TrainConfig.from_params(SMALL | huge | {"steps_per_epoch": 1})))
    assert (diverged.value.failure.step, diverged.value.failure.epoch) == (1, 1)


def test_a_trace_that_breaks_later_is_told_within_its_epoch(file):
    file.write_text(CODE.replace("return made", VALIDATED_ONLY.format("2 * made.matrix")))
    with pytest.raises(CodeError, match="of trace 1, but the trace differs by 1"):
        next(train(config(file)))


def test_sys_exit_is_an_exception_with_its_line(file):
    file.write_text(CODE.replace("return made", "raise SystemExit(3)"))
    with pytest.raises(RuntimeError, match=r"called sys.exit\(3\)") as raised:
        next(train(config(file)))
    line = 1 + file.read_text().splitlines().index("        raise SystemExit(3)")
    assert place_in(raised.value).endswith(f"line {line} of mine.py")
    file.write_text(CODE.replace("super().__init__()", "raise SystemExit"))
    with pytest.raises(
        CodeError, match=r"must be built, but raised SystemExit: , line .* mine.py"
    ):
        build_network(config(file))


def test_an_exception_is_told_by_the_command_with_its_line(file, tmp_path, capsys):
    file.write_text(CODE.replace("return made", "return made + nothing"))
    settings = [f"{k}={v}" for k, v in SMALL.items() if not k.endswith("snr_db")]
    command = ["train", "--out", str(tmp_path / "out"), "--set", *settings]
    assert main([*command, f"network.kind={file}:Mine"]) == 1
    told, code = capsys.readouterr().err.strip().splitlines()
    assert "raised NameError: name 'nothing' is not defined, line" in told
    assert told.endswith("mine.py:")
    assert code.strip() == "return made + nothing"


def test_dropout_acts_in_training_only(file):
    file.write_text(
        CODE.replace("return made", "noted.add(self.training)\n        return made")
        + "\nnoted = set()\n"
    )
    ours = config(file)
    loop = TrainingLoop(ours, torch.device("cpu"))
    noted = load(f"{file}:noted")
    loop.step()
    assert noted == {True}
    noted.clear()
    restored = [report.epoch for report in loop.reports()]
    assert restored == [1]
    assert noted == {True, False}
    assert not loop.network.training


def test_a_changed_file_is_refused_by_name_when_a_network_is_restored(file, tmp_path):
    (report,) = train(config(file))
    report.state.save(tmp_path / "state.pt")
    restored, _ = restore_network(tmp_path / "state.pt", torch.device("cpu"))
    assert restored.network.sha256 == source_of(f"{file}:Mine").sha256
    file.write_text(CODE.replace("square()", "abs()"))
    with pytest.raises(CodeError, match=r"mine.py has changed: its SHA-256 is .* was recorded"):
        restore_network(tmp_path / "state.pt", torch.device("cpu"))
    with pytest.raises(CodeError, match="has changed"):
        TrainingLoop(restored, torch.device("cpu"))


@pytest.fixture
def with_modules(file, tmp_path, monkeypatch):
    """A file that imports a module, which imports a package, all in one folder."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(user_code, "_texts", {})
    (tmp_path / "own_part.py").write_text("def late():\n    import own_package.inner\n")
    (tmp_path / "own_package" / "deep").mkdir(parents=True)
    for name in ("__init__.py", "inner.py", "deep/unused.py"):
        (tmp_path / "own_package" / name).write_text("import json\nanswer = 42\n")
    (tmp_path / "unrelated.py").write_text("")
    file.write_text(CODE + "from own_part import late\n")
    yield file
    for name in [*sys.modules]:
        if name.partition(".")[0] in ("own_part", "own_package"):
            del sys.modules[name]


@pytest.mark.parametrize(
    "changed", ["own_part.py", "own_package/inner.py", "own_package/deep/unused.py"]
)
@pytest.mark.parametrize("reference", ["{}/mine.py:Mine", "mine:Mine", "own_package.inner:answer"])
def test_a_changed_module_that_is_imported_is_refused_by_name(reference, changed, with_modules):
    reference = reference.format(with_modules.parent)
    source = source_of(reference)
    kept = dict(source.modules)
    assert "unrelated.py" not in kept
    if changed in kept:
        assert kept[changed] == (with_modules.parent / changed).read_text()
    require_unchanged(reference, source.sha256)
    with_modules.with_name("unrelated.py").write_text("other = 1\n")
    (with_modules.parent / changed).write_text("answer = 43\n")
    if reference.startswith("own_package") and changed == "own_part.py":
        require_unchanged(reference, source.sha256)  # it imports none of it
        return
    with pytest.raises(CodeError, match=rf"{changed}(, which .* imports,)? has changed: its"):
        load(reference, source.sha256)


def test_a_module_that_is_imported_already_is_not_taken_for_a_changed_one(with_modules):
    load(f"{with_modules}:Mine")
    with_modules.with_name("own_part.py").write_text("late = 0\n")
    with pytest.raises(CodeError, match=r"own_part.py, which .* imports, has changed since"):
        load(f"{with_modules}:Mine")


def test_a_worker_refuses_a_module_that_is_another_than_the_drivers(with_modules, monkeypatch):
    monkeypatch.setattr(user_code, "_given", {})
    source = source_of(f"{with_modules}:Mine")
    give_texts({str(with_modules): source})
    with_modules.with_name("own_part.py").write_text("late = 0\n")
    with pytest.raises(CodeError, match=r"own_part.py, which .* imports, has changed since"):
        load(f"{with_modules}:Mine", source.sha256)


def test_a_record_without_modules_fits_the_same_file(with_modules):
    alone = source_of(f"{with_modules}:Mine").sha256.partition(" ")[0]
    assert require_unchanged(f"{with_modules}:Mine", alone).modules


def test_a_network_that_cannot_be_pickled_is_kept_and_restored(file, tmp_path):
    file.write_text(CODE.replace("self.power =", "self.made = lambda: 1\n        self.power ="))
    (report,) = train(config(file))
    report.state.save(tmp_path / "state.pt")
    _, network = restore_network(tmp_path / "state.pt", torch.device("cpu"))
    torch.testing.assert_close(network.state_dict(), report.state.network)
    with pytest.raises((AttributeError, TypeError)):
        pickle.dumps(network)


def test_a_worker_runs_the_text_that_it_is_given(tmp_path, monkeypatch):
    monkeypatch.setattr(user_code, "_given", {})
    reference = f"{tmp_path}/absent.py:answer"
    with pytest.raises(CodeError, match="a file that can be read"):
        load(reference)
    place = f"{tmp_path}/absent.py"
    give_texts({place: Source(place, "answer = 42\n")})
    assert load(reference) == 42


def test_a_file_finds_what_lies_beside_it_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(user_code, "_given", {})
    monkeypatch.chdir(tmp_path)
    Path("beside.py").write_text("here = __file__\n")
    source = source_of("beside.py:here")
    monkeypatch.chdir("/")  # as a worker's is another
    give_texts({"beside.py": source})
    assert load("beside.py:here") == f"{tmp_path}/beside.py"


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ("return made", "return made.matrix", "must return a Covariance, but returned a Tensor"),
        ("return made", "return None", "must return a Covariance, but returned a NoneType"),
        (
            "return made",
            "return type(made)(made.matrix[:, 1:, 1:], None, made.shift)",
            r"\[B, N, N\].*N = 36 elements, but returned a matrix \(3, 35, 35\)",
        ),
        (
            "return made",
            "return type(made)(made.matrix.real, None, made.shift)",
            "must return a complex matrix",
        ),
        (
            "return made",
            "return type(made)(made.matrix[:1], None, made.shift[:1])",
            r"B = 3 scenes.* returned a matrix \(1, 36, 36\)",
        ),
        (
            "return made",
            "return type(made)(made.matrix.to(torch.complex128), None, made.shift)",
            "of the snapshots' type, torch.complex64, but returned one of torch.complex128",
        ),
        (
            "return made",
            "return type(made)(2 * made.matrix, None, made.shift)",
            "of trace 1, but the trace differs by 1",
        ),
        (
            "return made",
            "return type(made)(made.matrix + 0.1j * eye, None, made.shift)",
            "must return a Hermitian matrix",
        ),
        (
            "return made",
            "return type(made)(made.matrix.detach(), None, made.shift)",
            "it has no gradient",
        ),
        ("nn.Parameter(torch.tensor(float(power)))", "torch.ones(())", "must have parameters"),
        (
            "def forward",
            "def get_extra_state(self):\n        return {}\n\n    def forward",
            "`_extra_state` is a dict",
        ),
        ("lmmse(scenes)", "lmmse(scenes) * len(scenes.sources.azimuth)", "is told none"),
        ("nn.Module)", "object)", "raised TypeError|must be an nn.Module"),
        ("super().__init__()", "pass", "must be built, but raised AttributeError.* of module.py"),
        ("*, power=1.0", "*, powers=1.0", "argument 'power'. Did you mean `powers`"),
        ("import torch\n", "import torhc\n", "ModuleNotFoundError: No module named 'torhc'"),
        ("class Mine", "class Yours", "has no `Mine`"),
    ],
)
def test_a_network_that_breaks_the_contract_is_told_how(before, after, says, file):
    file.write_text(CODE.replace(before, after, 1))
    ours = config(file)
    with pytest.raises((CodeError, ValueError), match=says):
        build_network(ours)(scenes_of(ours))


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("return 1.0", "must return a tensor, but returned a float"),
        ("return covariance.shift.sum()", r"each of 3 scenes, but returned \(\)"),
        ("return covariance.dense()", r"returned \(3, 36, 36\)"),
        ("return scenes.sources.num_sources", "torch.int64"),
        ("return spread(covariance, scenes).detach()", "must be differentiable in the covariance"),
    ],
)
def test_a_loss_that_breaks_the_contract_is_told_how(body, says, file):
    file.write_text(CODE + f"\ndef mine(covariance, scenes):\n    {body}\n")
    ours = config(file, **{"loss.term": f"{file}:mine", "loss.weight": 1.0})
    scenes = scenes_of(ours)
    with pytest.raises(CodeError, match=says):
        own_term(build_network(ours)(scenes), scenes, ours)


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ({"network.args.power": 1}, "code of yours only"),
        ({"network.sha256": "00"}, "code of yours only"),
        ({"network.kind": "a.py:B", "network.args.on": True}, "a number or a str"),
        ({"network.kind": "a.py:B", "network.args.x": float("nan")}, "must be finite"),
        ({"network.kind": "a.py:B", "network.args": 3}, "no configuration name"),
        ({"loss.term": "a.py:b"}, "exactly for loss.weight > 0"),
        ({"loss.weight": 1.0}, "exactly for loss.weight > 0"),
        ({"loss.term": "spread", "loss.weight": 1.0, "loss.args.x": 1}, "code of yours only"),
    ],
)
def test_settings_without_code_to_go_with_are_refused(params, says):
    with pytest.raises(ConfigError, match=says):
        TrainConfig.from_params(params)


@pytest.mark.parametrize("name", ["eigengap", "norm"])
def test_a_term_is_not_called_as_a_number_that_there_is(name, file):
    file.write_text(CODE.replace("def spread", f"def {name}"))
    ours = config(file, **{"loss.term": f"{file}:{name}", "loss.weight": 1.0})
    scenes = scenes_of(ours)
    with pytest.raises(CodeError, match="Rename it"):
        own_term(build_network(ours)(scenes), scenes, ours)


@pytest.mark.parametrize(
    ("value", "good"), [(4, True), (4.5, False), ("abc", False), (True, False)]
)
def test_a_value_of_another_type_than_an_annotated_argument_is_refused(tmp_path, value, good):
    (tmp_path / "typed.py").write_text("class Typed:\n    def __init__(self, rank: int): ...\n")
    reference = f"{tmp_path / 'typed.py'}:Typed"
    refused = pytest.raises(CodeError, match="takes `rank: int`, but got")
    with nullcontext() if good else refused:
        bind(reference, None, (), (("rank", value),))


def test_what_takes_any_argument_is_given_any(file):
    file.write_text("def free(config, **more):\n    return more\n")
    assert bind(f"{file}:free", None, ("config",), (("a", 1),))(None) == {"a": 1}
