"""A damaged model folder is refused in one line that names the damage."""

import contextlib
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.small_model import scenes_of
from trainer.__main__ import main
from trainer.config import ConfigError
from trainer.scenes import save_scenes
from trainer.training.checkpoint import restore_network
from trainer.training.model import find_model


def _record(folder: Path, **changed) -> None:
    """Overwrite entries of a model's config.json; None removes one."""
    file = folder / "config.json"
    record = json.loads(file.read_text()) | changed
    file.write_text(json.dumps({k: v for k, v in record.items() if v is not None}))


def _state(folder: Path, change: Callable[[dict], object]) -> None:
    """Change a model's state, and record the digest of the changed file."""
    state = torch.load(folder / "state.pt", weights_only=True)
    change(state)
    torch.save(state, folder / "state.pt")
    digest = hashlib.sha256((folder / "state.pt").read_bytes()).hexdigest()
    _record(folder, state_sha256=digest)


def _weight(state: dict) -> str:
    return next(iter(state["network"]))


def _overwrite(folder: Path, start: int) -> None:
    data = bytearray((folder / "state.pt").read_bytes())
    data[start : start + 64] = bytes(64 * [0xA5])
    (folder / "state.pt").write_bytes(data)


DAMAGES = {
    "no calibration": (lambda d: (d / "config.json").write_text("{}"), "confidence is calibrated"),
    "no config.json": (lambda d: (d / "config.json").unlink(), "confidence is calibrated"),
    "two coefficients": (
        lambda d: _record(d, confidence={"coefficients": [1, 2], "error": 0, "count": 1}),
        "4 finite coefficients",
    ),
    "two coefficients of K asked": (
        lambda d: _record(
            d,
            confidence={
                "coefficients": [1, 2, 3, 4],
                "error": 0,
                "count": 1,
                "asked_coefficients": [1, 2],
            },
        ),
        "4 finite coefficients",
    ),
    "no coefficients": (
        lambda d: _record(d, confidence={"coefficients": None, "error": 0, "count": 1}),
        "confidence is calibrated",
    ),
    "no digest": (lambda d: _record(d, state_sha256=None), "state_sha256"),
    "overwritten bytes": (lambda d: _overwrite(d, 2000), "SHA-256"),
    "cut": (lambda d: (d / "state.pt").write_bytes(b"PK"), "SHA-256"),
    "not a number": (
        lambda d: _state(d, lambda s: s["network"][_weight(s)].mul_(float("nan"))),
        "weights must be finite",
    ),
    "a key less": (
        lambda d: _state(d, lambda s: s["network"].pop(_weight(s))),
        "weights must fit",
    ),
    "other sizes": (
        lambda d: _state(d, lambda s: s["params"].update({"network.width": 16})),
        "weights must fit",
    ),
    "unknown network": (
        lambda d: _state(d, lambda s: s["params"].update({"network.kind": "foo"})),
        "network.kind",
    ),
    "no generator": (lambda d: _state(d, lambda s: s.update(generator=None)), "`generator`"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_model_is_named_in_one_line(trained, tmp_path, capsys, name):
    damage, says = DAMAGES[name]
    copy, recording = tmp_path / "copy", tmp_path / "in.npz"
    shutil.copytree(find_model(trained), copy)
    save_scenes(scenes_of(size=2), recording)
    damage(copy)
    out = tmp_path / "out.npz"
    asked = ["localise", "--model", str(copy), "--scenes", str(recording), "--out", str(out)]
    assert main(asked) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1, said
    assert says in said[0]
    assert not out.exists()


@pytest.mark.parametrize("start", [0, 40, 300, 1000])
def test_a_state_of_overwritten_bytes_is_a_configuration_error(trained, tmp_path, start):
    """A checkpoint has no recorded digest."""
    copy = tmp_path / "copy"
    shutil.copytree(find_model(trained), copy)
    data = bytearray((copy / "state.pt").read_bytes())
    data[start : start + 200] = bytes(200 * [0x5A])
    (copy / "state.pt").write_bytes(data)
    with contextlib.suppress(ConfigError):  # or the bytes did not matter: anything else is wrong
        restore_network(copy / "state.pt", torch.device("cpu"))
