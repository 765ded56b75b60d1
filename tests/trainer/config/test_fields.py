"""The table of fields is whole, and its intervals are those that configurations take."""

import re
from pathlib import Path

import pytest

from trainer.config import FIELDS, MARGIN_FIELDS, ConfigError, TrainConfig, parse_value
from trainer.config.fields import _TABLE

APPLIES = {
    "network.rank": {"network.kind": "factor", "covariance.blend_bound": 0.3},
    "network.stages": {"network.kind": "unrolled"},
    "network.noise_floor": {"network.kind": "unrolled", "network.stages": 1},
    "network.normalisation": {"network.kind": "gram"},
    "covariance.blend_bound": {"network.kind": "factor", "network.rank": 8},
    "spectral.deg_thresh": {
        "spectral.backend": "masked",
        "eigengap.weight": 1,
        "eigengap.definition": "subspace",
        "eigengap.margin_subspace": 0.1,
    },
    "scene.range_min_m": {"scene.range_max_m": 1e6},
    "scene.range_max_m": {"scene.range_min_m": 1e-12},
    "scene.wavelength_m": {"scene.spacing_m": 1e-12},
    "scene.spacing_m": {"scene.wavelength_m": 1e6},
    "scene.azimuth_max_deg": {"scene.spacing_m": 1e-12},
    "scene.elevation_max_deg": {"scene.spacing_m": 1e-12},
    "snr_max_db": {"snr_min_db": -200.0},
    **{
        f"eigengap.{margin}": {"eigengap.weight": 1, "eigengap.definition": definition}
        for definition, margin in MARGIN_FIELDS.items()
    },
}
"""Settings without which a field does not apply, or another rule comes first."""
NUMBERS = [
    name
    for name, one in FIELDS.items()
    if one.values[0] in "><[(" and not name.endswith(".weight")  # which decide what else applies
]


def test_the_table_describes_every_field_and_no_other():
    assert FIELDS.keys() == _TABLE.keys()
    whole = TrainConfig().to_params()
    assert {n: list(f.default) if f.kind == "list" else f.default
            for n, f in FIELDS.items() if f.default is not None} == whole  # fmt: skip


@pytest.mark.parametrize("name", NUMBERS)
def test_a_field_takes_its_interval_and_nothing_beyond(name):
    kind = {"float": float, "int": int, "list": lambda x: [x]}[FIELDS[name].kind]

    def refusal(value: float) -> str:
        try:
            TrainConfig.from_params(APPLIES.get(name, {}) | {name: kind(value)})
        except ConfigError as error:
            return str(error)
        return ""

    if match := re.fullmatch(r"(>=?) (\d+)", FIELDS[name].values):
        low, high, closed = float(match[2]), float(match[2]) + 2, (match[1] == ">=", True)
    else:
        match = re.fullmatch(r"([\[(])(-?\d+), (\d+)([\])])", FIELDS[name].values)
        low, high, closed = float(match[2]), float(match[3]), (match[1] == "[", match[4] == "]")
        assert name.rpartition(".")[2] in refusal(high + 1e-9)
    assert name.rpartition(".")[2] in refusal(low - (1 if kind is int else 1e-9))
    assert [not refusal(low), not refusal(high)] == list(closed)
    assert not refusal((low + high) / 2)


@pytest.mark.parametrize("name", [n for n, one in FIELDS.items() if " | " in one.values])
def test_a_name_that_the_table_lacks_is_refused(name):
    with pytest.raises(ConfigError, match="must be one of"):
        TrainConfig.from_params({"eigengap.weight": 1, name: "nonsense"})


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("evaluation.objective_snr_db", "-10,-5", (-10.0, -5.0)),
        ("evaluation.objective_snr_db", "[-10]", (-10.0,)),
        ("evaluation.baselines", "crb,sml", ("crb", "sml")),
        ("eps_psd", "1", 1.0),
        ("network.rank", "none", None),
        ("network.kind", "factor", "factor"),
        ("network.kind", '"factor"', "factor"),
        ("scene.positions_m", "[[0, 1], [1, 2]]", ((0.0, 1.0), (1.0, 2.0))),
    ],
)
def test_text_is_a_value_of_the_fields_type(name, text, value):
    found = parse_value(name, text)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("eps_psdd", "1", "Did you mean `eps_psd`"),
        ("epochs", "1.5", "of type int"),
        ("epochs", "none", "of type int"),
        ("eps_psd", "NaN", "finite"),
        ("eps_psd", "small", "of type float"),
        ("network.kind", "none", "of type str"),
    ],
)
def test_text_of_another_type_is_refused(name, text, says):
    with pytest.raises(ConfigError, match=says):
        parse_value(name, text)


def test_the_document_shows_the_fields_as_they_are(monkeypatch):
    root = Path(__file__).parents[3]
    monkeypatch.syspath_prepend(root / "benchmarks")
    import configuration

    assert configuration.table() in (root / "docs" / "configuration.md").read_text(), (
        "run `python benchmarks/configuration.py --write`"
    )
