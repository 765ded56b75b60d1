"""Configurations: checked once, frozen, and equal for equal settings."""

import dataclasses
import math
import re

import pytest

from trainer.config import ConfigError, SceneConfig, TrainConfig

BAD = [
    ({"eigengap.weight": -1.0}, "eigengap.weight >= 0"),
    ({"eigengap.weight": 0.1, "eigengap.definition": "gap"}, "exactly eigengap.margin"),
    (
        {"eigengap.weight": 0.1, "eigengap.definition": "gap", "eigengap.margin": -0.1},
        "eigengap.margin > 0",
    ),
    ({"eigengap.definition": "gap"}, "weight > 0"),
    ({"eigengap.wieght": 0.1}, "Did you mean `eigengap.weight`"),
    ({"eps_psd": -1e-4}, "eps_psd >= 0"),
    ({"eps_psd": float("nan")}, "must be finite"),
    ({"eps_psd": "small"}, "must be of type"),
    ({"scene.max_sources": 36}, "max_sources < num_elements"),
    ({"spectral.backend": "gram"}, "only for network.kind == factor"),
    (
        {
            "spectral.backend": "gram",
            "network.kind": "factor",
            "network.rank": 20,
            "covariance.blend_bound": 0.3,
        },
        "factor columns < num_elements",
    ),
    ({"spectral.backend": "masked", "spectral.deg_thresh": 1e-6}, "== subspace"),
    ({"spectral.deg_thresh": 1e-6}, "exactly for spectral.backend == masked"),
    ({"covariance.blend_bound": 0.3}, "exactly for network.kind == factor"),
    ({"network.stages": 2}, "exactly for network.kind == unrolled"),
    ({"network.noise_floor": 0.4}, "only for network.kind == unrolled"),
    (
        {"network.kind": "unrolled", "network.stages": 2, "network.noise_floor": 0.0},
        "0 < noise_floor < inf",
    ),
    ({"evaluation.refinement": "judge"}, "must be one of scoring, judged.*`judged`"),
    ({"network": 3}, "is a group"),
    ({"network.kind": "factor", "covariance.blend_bound": 0.3}, "rank is given exactly"),
    ({"network.width": 0}, "width >= 1"),
    ({"scene.wavelength_m": 0.0}, r"wavelength_m > 0.*Give it in metres"),
    ({"scene.azimuth_max_deg": 90.0}, "0 < azimuth_max_deg < 90"),
    ({"scene.range_min_m": 4.0}, "range_min_m < range_max_m"),
    ({"scene.code_kind": "dft", "scene.code_bits": 1}, "code_bits == 0 unless"),
    ({"scene.code_bits": -1}, "code_bits >= 0"),
    ({"scene.source_correlation": 1.0}, "0 <= source_correlation < 1"),
    ({"scene.code_kind": "dtf"}, "Did you mean `dft`"),
    ({"optimizer.learning_rate": 0.0}, "0 < learning_rate"),
    ({"optimizer.weight_decay": -1.0}, "weight_decay >= 0"),
    ({"evaluation.report_snr_db": []}, "report_snr_db is not empty"),
    ({"evaluation.objective_snr_db": [101.0]}, r"abs\(objective_snr_db\) <= 100 \[dB\]"),
    ({"evaluation.seed": -1}, "0 <= seed <= "),
    ({"evaluation.seed": 2_000_003}, "seed != test_seed"),
    ({"evaluation.tolerance": -0.1}, "0 <= evaluation.tolerance"),
    ({"evaluation.baselines": ["sm"]}, "Did you mean `sml`"),
    ({"evaluation.baselines": ["SML"]}, "Did you mean `sml`"),
    ({"scene.code_bits": 99}, "code_bits <= 16"),
    ({"scene.num_horizontal": 10**9}, r"num_horizontal \* num_vertical <= 100000"),
    ({"snr_min_db": 5.0}, "snr_min_db <= snr_max_db"),
]


@pytest.mark.parametrize(("params", "message"), BAD)
def test_a_bad_configuration_is_refused_with_rule_value_and_remedy(params, message):
    with pytest.raises(ConfigError, match=message):
        TrainConfig.from_params(params)


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("range_min_m", "1", "a number"),
        ("max_sources", 1.5, "a whole number"),
        ("num_snapshots", True, "a whole number"),
        ("num_horizontal", 1e9, "a whole number"),
        ("code_kind", 3, "text"),
        ("positions_m", "abc", "a tuple"),
    ],
)
def test_a_field_of_another_type_is_refused_by_name(name, value, kind):
    with pytest.raises(ConfigError, match=rf"`{name} is {kind}` .* {value!r} of type"):
        SceneConfig(**{name: value})


def test_configurations_are_frozen_and_equal_ones_share_a_digest():
    config = TrainConfig()
    assert config.digest == TrainConfig().digest
    assert config.digest != dataclasses.replace(config, seed=1).digest
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.seed = 1  # type: ignore[misc]


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_every_number_of_a_configuration_is_finite(value):
    config = TrainConfig()
    groups = [config, *(x for x in vars(config).values() if dataclasses.is_dataclass(x))]
    numbers = [
        (group, name, value if isinstance(now, float) else (value,))
        for group in groups
        for name, now in vars(group).items()
        if isinstance(now, float) or (isinstance(now, tuple) and isinstance((*now, 0)[0], float))
    ]
    assert len(numbers) >= 18
    for group, name, bad in numbers:
        with pytest.raises(ConfigError):
            dataclasses.replace(group, **{name: bad})


@pytest.mark.parametrize(("columns", "rows"), [(6, 6), (1, 16), (16, 1)])
def test_a_spacing_with_grating_lobes_is_refused_and_either_remedy_lifts_it(columns, rows):
    panel = {"num_horizontal": columns, "num_vertical": rows, "max_sources": 1}
    with pytest.raises(ConfigError, match="grating lobes") as refused:
        SceneConfig(**panel, spacing_m=0.24)
    ways = re.search(r"Use (.*) \(localise: (.*)\), or (.*), to simulate\.", str(refused.value))
    assert ways
    assert ways[1].count("deg") == ways[2].count("deg") == (2 if columns == rows else 1)
    for way in ways.group(1, 3):
        values = {name: float(value) for name, value in (x.split("=") for x in way.split(" and "))}
        kept = SceneConfig(**panel, **({"spacing_m": 0.24} | values))
        largest = max(
            math.sin(math.radians(limit))
            for limit, elements in (
                (kept.azimuth_max_deg, columns),
                (kept.elevation_max_deg, rows),
            )
            if elements > 1
        )
        # the lobe of a beam at the largest angle stays out of sight, just
        assert 1 <= kept.wavelength_m / kept.spacing_m - largest < 1.001
    # no angle would do
    with pytest.raises(
        ConfigError, match=r"Use spacing_m=0\.\d+, to simulate; no region .*\. Is spacing_m in"
    ):
        SceneConfig(**panel, spacing_m=0.6)
    # two thirds of a wavelength are usual: the region is at fault, not the unit
    with pytest.raises(ConfigError) as refused:
        SceneConfig(spacing_m=0.2, wavelength_m=0.3)
    assert "Is " not in str(refused.value)


def test_an_endless_range_is_led_to_a_thousand_times_the_distance_from_which_all_look_alike():
    with pytest.raises(ConfigError, match=r"Fraunhofer.*far") as refused:
        SceneConfig(range_max_m=math.inf)
    remedy = re.search(r"Give ([\d.]+) m", str(refused.value))
    assert remedy
    given = SceneConfig(range_max_m=float(remedy[1]))
    assert given.range_max_m == pytest.approx(1000 * given.fraunhofer_m, rel=0.01)
