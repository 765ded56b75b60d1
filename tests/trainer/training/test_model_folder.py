"""Model folders: what a training leaves, and that they are replaced as a whole."""

from pathlib import Path

import numpy as np
import pytest

from tests.small_model import CONFIG
from trainer.__main__ import main
from trainer.config import ConfigError, TrainConfig
from trainer.evaluation.rows import ErrorsPerScene, EvaluationRow
from trainer.training import model
from trainer.training.model import export_model, find_model, load_model


def test_a_training_leaves_a_model_with_weights_configuration_and_card(trained):
    folder = find_model(trained)
    assert folder == trained / "best" == find_model(folder)
    assert {p.name for p in folder.iterdir()} == {"state.pt", "config.json", "model_card.md"}
    assert {p.name for p in trained.iterdir()} == {"best", "state.pt", "config.json"}
    made = load_model(trained)
    assert made.config == TrainConfig.from_params(CONFIG)
    assert not made.network.training
    card = (folder / "model_card.md").read_text()
    for needed in (
        "| network | ",
        "| network+scoring | 0 | 2 | 8 | ",
        "raining seed 0",
        "seed 2000003",
        "Command: `",
        "torch ",
        "points, its table of outer products whole.",
    ):
        assert needed in card
    assert "{" not in card
    assert main(["train", "--config", str(folder / "config.json"), "--out", "/dev/null/x"]) == 2


def test_the_kept_epoch_is_the_best_one(trained):
    from trainer.training.checkpoint import TrainState
    from trainer.training.loop import train

    reports = [(r.capped_error, r.epoch) for r in train(TrainConfig.from_params(CONFIG))]
    assert TrainState.load(find_model(trained) / "state.pt").epoch == min(reports)[1]


def test_a_model_folder_is_replaced_as_a_whole(trained, tmp_path, monkeypatch):
    made, state = tmp_path / "best", find_model(trained) / "state.pt"
    about = {"argv": ["first"], "versions": {}}
    monkeypatch.setattr(model, "evaluate_network", lambda *_, **__: Rows())
    monkeypatch.setattr(
        model, "calibrate", lambda network, config: load_model(trained).calibration
    )
    export_model(state, made, about=about)
    export_model(state, made, about=about | {"argv": ["second"]})
    assert "second" in (made / "model_card.md").read_text()

    def fail(self: Path, target: Path) -> Path:
        if self.name.endswith(".new"):
            raise OSError(28, "No space left on device")
        return rename(self, target)

    rename = Path.rename
    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(ConfigError, match="No space left"):
        export_model(state, made, about=about | {"argv": ["third"]})
    assert "second" in (made / "model_card.md").read_text()
    assert [p.name for p in tmp_path.iterdir()] == ["best"]


def test_an_export_removes_the_leftovers_of_a_killed_one(trained, tmp_path, monkeypatch):
    made, state = tmp_path / "best", find_model(trained) / "state.pt"
    monkeypatch.setattr(model, "evaluate_network", lambda *_, **__: Rows())
    monkeypatch.setattr(
        model, "calibrate", lambda network, config: load_model(trained).calibration
    )
    export_model(state, made, about={"argv": ["first"]})

    def stop(*_: object, **__: object) -> None:
        raise OSError(5, "killed")

    with monkeypatch.context() as killed:  # between the two renames: neither undone nor cleaned up
        killed.setattr(model.shutil, "rmtree", lambda *_, **__: None)
        rename = Path.rename
        killed.setattr(Path, "rename", lambda a, b: rename(a, b) if a == made else stop())
        with pytest.raises(ConfigError, match="killed"):
            export_model(state, made, about={"argv": ["second"]})
    assert not made.exists()
    (old,) = tmp_path.glob(".best*.old")
    load_model(old)
    assert "first" in (old / "model_card.md").read_text()
    export_model(state, made, about={"argv": ["third"]})
    assert "third" in (made / "model_card.md").read_text()
    assert [p.name for p in tmp_path.iterdir()] == ["best"]


class Rows:
    """An evaluation, without evaluating."""

    rows = (EvaluationRow("network", 0.0, 1, 4, 0.5, 0.4, 0.6, *[None] * 11),)
    scenes = ErrorsPerScene(
        "network", np.arange(4), np.zeros(4), np.ones(4), np.full(4, 0.5), np.ones(4)
    )


def test_training_into_a_folder_with_a_model_is_refused(trained, capsys):
    before = (find_model(trained) / "state.pt").read_bytes()
    assert main(["train", "--set", "epochs=1", "--out", str(trained)]) == 2
    assert "holds no model" in capsys.readouterr().err
    assert (find_model(trained) / "state.pt").read_bytes() == before


@pytest.mark.parametrize("rate", [1e37, 1e38])
def test_a_learning_rate_beyond_single_precision_is_refused(rate):
    with pytest.raises(ConfigError, match="learning_rate <= 1e"):
        TrainConfig.from_params(CONFIG | {"optimizer.learning_rate": rate})
