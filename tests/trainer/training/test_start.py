"""A training begins with the weights of a model, on its own panel and on others."""

from dataclasses import replace

import pytest
import torch

from tests.small_model import CONFIG
from trainer.__main__ import main
from trainer.config import ConfigError, TrainConfig
from trainer.training import TrainState, find_model, initial_network, start, started_config


def test_it_begins_with_the_weights_whatever_the_seed(trained):
    state = find_model(trained) / "state.pt"
    config = started_config(state, CONFIG | {"seed": 5})
    begun, weights = initial_network(config).state_dict(), TrainState.load(state).network
    assert begun.keys() == weights.keys()
    for name, weight in weights.items():
        torch.testing.assert_close(begun[name], weight, rtol=0, atol=0)
    assert TrainConfig.from_params(config.to_params()) == config
    moved = replace(config, start_from="elsewhere")
    assert (moved, moved.digest) == (config, config.digest)


def test_the_network_is_that_of_the_model(trained):
    own = TrainConfig.from_params(CONFIG)
    made = started_config(find_model(trained) / "state.pt", {})
    assert made.scene != own.scene
    assert replace(made.network, planes=None) == own.network


def test_another_panel_keeps_the_range_planes_of_the_weights(trained):
    state = find_model(trained) / "state.pt"
    panel = {"scene.num_horizontal": 10, "scene.num_vertical": 8}
    config = started_config(state, CONFIG | panel)
    network = initial_network(config)
    trunk = network.start.trunk
    assert trunk.planes == config.network.planes != network.shape[0]
    # and so does a training that begins with those, on a panel that needs as many again
    again = started_config(state, CONFIG)
    assert again.network.planes is None


def test_weights_that_are_no_longer_those_named_are_refused(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(start, "_given", {})
    state = find_model(trained) / "state.pt"
    config = started_config(state, CONFIG)
    with pytest.raises(ConfigError, match="SHA-256"):
        initial_network(replace(config, start_sha256="0" * 64))
    with pytest.raises(ConfigError, match="must exist"):
        initial_network(replace(config, start_from=str(tmp_path / "gone.pt")))
    with pytest.raises(ConfigError, match="given with start_sha256"):
        replace(config, start_sha256=None)
    with pytest.raises(ConfigError, match="no file with them is named"):
        initial_network(replace(config, start_from=None))


def test_weights_of_another_network_are_refused(trained, tmp_path, capsys):
    width = CONFIG["network.width"] + 1
    asked = ["train", "--start-from", str(trained), "--out", str(tmp_path / "x")]
    assert main([*asked, "--set", f"network.width={width}", "device=cpu"]) == 2
    assert "do not fit" in capsys.readouterr().err
