"""Laws of the search spaces: every draw is a valid configuration, and nothing idle is in it."""

import json
import subprocess
import sys

import optuna
import pytest

import spaces
from spaces.space import AnsweringTrial
from trainer.config import FIELDS, TrainConfig

PRESETS = sorted(spaces.PRESETS)
DRAWS = 200


@pytest.fixture(scope="module")
def draws() -> dict[str, list[dict]]:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    found = {}
    for name in PRESETS:
        sampler = optuna.samplers.RandomSampler(seed=0)
        study = optuna.create_study(sampler=sampler)
        found[name] = [spaces.get(name).suggest(study.ask()) for _ in range(DRAWS)]
    return found


@pytest.mark.parametrize("preset", PRESETS)
def test_every_draw_builds_a_valid_config_and_survives_the_round_trip(preset, draws):
    space = spaces.get(preset)
    for drawn in draws[preset]:
        config = TrainConfig.from_params({**space.fixed, **drawn})
        assert TrainConfig.from_params(config.to_params()) == config


@pytest.mark.parametrize("preset", PRESETS)
def test_what_does_not_apply_is_absent(preset, draws):
    for drawn in draws[preset]:
        definition = drawn.get("eigengap.definition")
        margins = {name for name in drawn if name.startswith("eigengap.margin")}
        assert len(margins) == (definition is not None)
        assert (definition is None) == (drawn["eigengap.weight"] == 0)
        kind = drawn.get("network.kind", "dictionary")
        assert (drawn.get("spectral.backend") == "gram") <= (kind == "factor")
        assert ("network.rank" in drawn) == (kind == "factor")
        for name in ("network.stages", "network.noise_floor"):
            assert (name in drawn) == (kind == "unrolled")
        assert ("spectral.deg_thresh" in drawn) == (drawn.get("spectral.backend") == "masked")
        assert (drawn.get("spectral.backend") == "masked") <= (definition == "subspace")
        if definition is None:
            assert "spectral.backend" not in drawn


@pytest.mark.parametrize("preset", PRESETS)
def test_draws_set_only_declared_parameters_of_the_declared_kind(preset, draws):
    kinds = {"float": float, "int": int, "str": str}
    allowed = set(spaces.get(preset).parameters())
    for drawn in draws[preset]:
        assert set(drawn) <= allowed <= set(FIELDS)
        for name, value in drawn.items():
            assert isinstance(value, kinds[FIELDS[name].kind])


def test_exploring_finds_every_branch_that_random_draws_reach(draws):
    for preset in PRESETS:
        reached = {name for drawn in draws[preset] for name in drawn}
        assert reached <= set(spaces.get(preset).parameters())


@pytest.mark.parametrize("preset", PRESETS)
def test_ranges_survive_json_and_hold_the_anchors(preset):
    space = spaces.get(preset)
    ranges = space.ranges()
    data = json.loads(json.dumps({n: spaces.range_to_json(r) for n, r in ranges.items()}))
    assert {n: spaces.range_from_json(d) for n, d in data.items()} == ranges
    for anchor in space.anchors:
        assert all(value in ranges[name] for name, value in anchor.items())
        assert space.ranges_of(anchor).items() <= ranges.items()


def test_no_two_presets_are_the_same_space():
    seen = {str(sorted(space.describe().items())) for space in spaces.PRESETS.values()}
    assert len(seen) == len(PRESETS)


@pytest.mark.parametrize("preset", PRESETS)
def test_anchors_are_valid_and_begin_with_the_term_switched_off(preset):
    space = spaces.get(preset)
    configs = [TrainConfig.from_params({**space.fixed, **space.draw(a)}) for a in space.anchors]
    assert configs[0].eigengap.weight == 0
    assert any(config.eigengap.weight > 0 for config in configs[1:])


@pytest.mark.parametrize("preset", ["smoke", "local", "eigengap", "full"])
def test_the_founding_defaults_are_an_anchor_as_far_as_the_space_can_say_them(preset):
    """`spectral` searches the subspace loss only, which the founding defaults do not have."""
    space = spaces.get(preset)
    configs = [TrainConfig.from_params({**space.fixed, **space.draw(a)}) for a in space.anchors]
    founding = next(c for c in configs if (c.eigengap.weight, c.eigengap.margin) == (0.1, 0.03))
    assert founding.eigengap.definition == "gap"
    assert founding.eps_psd == 1e-4
    if "spectral.backend" in space.parameters():
        assert founding.spectral.backend == "svd"


def test_optuna_accepts_each_anchor_as_its_own_first_trial():
    for space in spaces.PRESETS.values():
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
        for anchor in space.anchors:
            study.enqueue_trial(dict(anchor))
        for anchor in space.anchors:
            assert space.suggest(study.ask()) == space.draw(anchor)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"eigengap.term": "off", "nonsense": 1}, "nonsense"),
        ({"eigengap.term": "maybe"}, "must lie in"),
        ({"optimizer.learning_rate": 5.0}, "must lie in"),
    ],
)
def test_a_bad_anchor_is_refused_with_the_value(change, message):
    anchor = {"eigengap.term": "off", "optimizer.learning_rate": 1e-2} | change
    with pytest.raises(ValueError, match=message):
        spaces.get("smoke").draw(anchor)


def test_a_misspelt_preset_gets_a_suggestion():
    with pytest.raises(ValueError, match="Did you mean `local`"):
        spaces.get("locla")


def test_one_name_with_two_ranges_is_refused():
    def suggest(trial):
        wide = trial.suggest_categorical("wide", (True, False))
        return {"x": trial.suggest_float("x", 0.0, 2.0 if wide else 1.0)}

    with pytest.raises(ValueError, match="one range"):
        spaces.Space("two", "", suggest).describe()


def test_importing_spaces_pulls_in_the_standard_library_only():
    code = (
        "import sys; before = set(sys.modules); import spaces; "
        "new = {m.split('.')[0] for m in set(sys.modules) - before}; "
        "print(new - set(sys.stdlib_module_names))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "{'spaces'}"


def test_a_space_of_many_choices_is_explored_in_bounded_time_and_every_choice_once(monkeypatch):
    monkeypatch.setattr("spaces.space.MOST_BRANCHES", 64)

    def suggest(trial):
        return {f"c{i}": trial.suggest_categorical(f"c{i}", "abc") for i in range(12)}

    many = spaces.Space("many", "12 choices of 3.", suggest)
    draws = many.branches()
    assert len(draws) == 64
    assert {pair for drawn in draws for pair in drawn.items()} == {
        (f"c{i}", choice) for i in range(12) for choice in "abc"
    }
    fixed = spaces.changed(
        many, spaces.Changes({"c3": "b"}), lambda params: "", lambda name, params: "", {}
    )
    last = {f"c{i}": "b" if i == 3 else "c" for i in range(12)}  # far from the first choices
    answers = AnsweringTrial(lambda name, allowed: last[name])
    assert fixed.suggest(answers) == last
