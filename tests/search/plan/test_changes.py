"""Any preset, changed: what is fixed holds in every draw, what is searched is drawn, and a change
that cannot be is refused in one line."""

import json

import optuna
import pytest

import spaces
from search.plan.config import SearchConfig
from search.records import RunStore
from search.run import main
from search.suggest.warm import space_changes
from trainer.config import FIELDS

optuna.logging.set_verbosity(optuna.logging.WARNING)


def plan(preset="local", **changes) -> SearchConfig:
    return SearchConfig(preset, 4, "x", **changes)


def draws(space: spaces.Space, count: int = 30) -> list[dict]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    return [space.suggest(study.ask()) for _ in range(count)]


@pytest.mark.parametrize("preset", spaces.PRESETS)
def test_an_unchanged_preset_is_the_presets_own_space(preset):
    assert plan(preset).space.suggest is spaces.get(preset).suggest


@pytest.mark.parametrize(
    ("preset", "setting"),
    [
        ("local", "network.kind=factor"),
        ("local", "network.width=20"),
        ("local", "eigengap.weight=0"),
        ("local", "eigengap.weight=0.3"),
        ("local", "eigengap.definition=leak"),
        ("local", "eigengap.definition=threshold"),
        ("local", "network.kind=gram"),
        ("local", "spectral.backend=masked"),
        ("local", "spectral.backend=gram"),
        ("local", "eigengap.term=on"),
        ("smoke", "eps_psd=0.01"),
        ("smoke", "network.width=24"),
        ("smoke", "batch_size=8"),
        ("spectral", "network.rank=12"),
        ("eigengap", "optimizer.weight_decay=0.1"),
    ],
)
def test_a_fixed_value_holds_in_every_draw_that_has_the_field(preset, setting):
    ours = plan(preset, settings=(setting,))
    name, _, text = setting.partition("=")
    value = text if name == "eigengap.term" else ours.changes.values[name]
    before, after = spaces.get(preset), ours.space
    assert name not in after.ranges()
    seen = set()
    for drawn in (*draws(after), *map(after.draw, after.anchors)):
        params = ours.train_config(drawn).to_params()
        if name in FIELDS and (name in drawn or name not in before.parameters()):
            assert params[name] == value
        seen.add(drawn["eigengap.weight"] > 0 if "eigengap.weight" in drawn else None)
    if name in ("eigengap.term", "eigengap.weight"):
        assert seen == {value not in (0, "off")}


@pytest.mark.parametrize(
    ("preset", "changes", "name", "expected"),
    [
        ("local", {"ranges": ("eps_psd=1e-5:0.1",)}, "eps_psd", spaces.Float(1e-5, 0.1)),
        ("local", {"ranges": ("network.width=8:12",)}, "network.width", spaces.Int(8, 12)),
        ("smoke", {"ranges": ("batch_size=8:16",)}, "batch_size", spaces.Int(8, 16)),
        ("spectral", {"ranges": ("network.rank=4:12",)}, "network.rank", spaces.Int(4, 12)),
        (
            "local",
            {"choices": ("eigengap.definition=gap,leak",)},
            "eigengap.definition",
            spaces.Choice(("gap", "leak")),
        ),
        (
            "smoke",
            {"choices": ("eigengap.definition=gap,count",)},
            "eigengap.definition",
            spaces.Choice(("gap", "count")),
        ),
        (
            "local",
            {"choices": ("network.kind=factor,gram",)},
            "network.kind",
            spaces.Choice(("factor", "gram")),
        ),
        (
            "smoke",
            {"choices": ("network.width=16,32",)},
            "network.width",
            spaces.Choice((16, 32)),
        ),
    ],
)  # fmt: skip
def test_a_new_range_is_drawn_from_and_takes_the_anchors_that_lie_in_it(
    preset, changes, name, expected
):
    ours = plan(preset, **changes)
    assert ours.space.ranges()[name] == expected
    values = [drawn[name] for drawn in draws(ours.space) if name in drawn]
    assert len(set(values)) > 1
    assert all(value in expected for value in values)
    for anchor in ours.space.anchors:
        ours.train_config(ours.space.draw(anchor))


def test_choices_that_go_with_no_valid_configuration_are_not_drawn():
    """`gram` differentiates factors only, so that the dense networks do without the term."""
    space = plan(settings=("spectral.backend=gram",)).space
    terms = {(one["network.kind"], one["eigengap.weight"] > 0) for one in draws(space, 200)}
    assert terms == {
        *(("dictionary", False), ("unrolled", False)),
        *(("factor", False), ("factor", True)),
    }


def test_what_applies_to_one_network_only_is_drawn_with_it():
    """Also where the preset has one kind of network, and fields of another are added."""
    kinds = {"choices": ("network.kind=dictionary,unrolled",)}
    space = plan("smoke", **kinds, ranges=("network.stages=1:3",)).space
    assert {("network.stages" in one, one["network.kind"]) for one in draws(space)} == {
        *((False, "dictionary"), (True, "unrolled")),
    }
    code = "examples/free_gram.py:FreeGram"
    kinds = {"choices": (f"network.kind=dictionary,{code}",)}
    own = plan("smoke", **kinds, ranges=("network.args.rank=2:4",))
    for drawn in (*draws(own.space), *map(own.space.draw, own.space.anchors)):
        config = own.train_config(drawn)
        assert ("network.args.rank" in drawn) == (config.network.kind == code)
        assert config.network.sha256 == (own.code[code] if drawn["network.kind"] == code else None)


def test_a_field_without_a_value_so_far_begins_in_the_middle_of_its_range():
    code = "examples/free_gram.py:count_entropy"
    own = plan("local", settings=(f"loss.term={code}",), ranges=("loss.weight=0.01:1:log",))
    assert [one["loss.weight"] for one in own.space.anchors] == [pytest.approx(0.1)] * 5


def test_anchors_have_the_fixed_value_in_place_of_their_own():
    assert len(plan(settings=("eps_psd=0.01",)).space.anchors) == 5
    (only,) = plan(settings=("network.kind=unrolled", "eigengap.term=off")).space.anchors
    assert only["network.stages"] == 2
    anchors = plan("smoke", ranges=("network.depth=2:4",)).space.anchors
    assert [one["network.depth"] for one in anchors] == [3, 3]  # the configuration's default


def test_a_changed_plan_survives_json_and_is_told_from_another():
    ours = plan(settings=("eps_psd=0.01", "scene.num_antennas=8"), ranges=("batch_size=8:16",))
    again = SearchConfig(**json.loads(json.dumps(ours.as_dict())))
    assert again == ours
    assert again.space_json == ours.space_json
    other = plan(settings=("eps_psd=0.02", "scene.num_antennas=8"), ranges=("batch_size=8:16",))
    assert space_changes(other.space_json, ours.space_json) == ["eps_psd was 0.02, is 0.01"]
    assert ours.template.scene.num_antennas == 8


def test_epochs_are_a_setting_and_the_estimate_follows_the_scenes():
    assert plan(epochs=5).space_json == plan(settings=("epochs=5",)).space_json
    assert plan(settings=("batch_size=32", "epochs=5")).minutes == pytest.approx(
        plan().minutes / 4
    )


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--set", "network.kimd=factor"], "Did you mean `network.kind`"),
        (["--set", "eigengap.tern=on"], "Did you mean `eigengap.term`"),
        (["--set", "eigengap.term=maybe"], "one of on, off"),
        (["--set", "network.width"], "NAME=VALUE"),
        (["--set", "network.width=wide"], "of type int"),
        (["--set", "scene.num_antennas=0"], "num_antennas >= 1"),
        (["--set", "optimizer.learning_rate=nan"], "must be finite, but got nan"),
        (["--set", "seed=3"], "Use --seed"),
        (["--set", "epochs=0"], "epochs >= 1"),
        (["--epochs", "3", "--set", "epochs=4"], "Give one of them"),
        (["--set", "eigengap.weight=0", "eigengap.definition=leak"], "in none. `no eigengap.def"),
        (
            ["--preset", "smoke", "--set", "network.rank=3"],
            "applies to network.kind = factor",
        ),
        (["--range", "eps_psd=1"], "NAME=LOW:HIGH"),
        (["--range", "eps_psd=2:1"], "LOW < HIGH"),
        (["--range", "eps_psd=0:1:log"], "Raise it"),
        (["--range", "network.depth=1:3:log"], "Leave :log out"),
        (["--range", "network.kind=1:3"], "Use --choices"),
        (["--range", "eigengap.margin=0.1:2"], "eigengap.margin <= 1"),
        (["--range", "eigengap.weight=0:1"], "without eigengap.weight > 0"),
        (["--range", "scene.num_antennas=4:8"], "would not compare"),
        (["--range", "eps_psd=1e-4:1", "--set", "eps_psd=1"], "Leave one out"),
        (["--set", "batch_size=8", "batch_size=9"], "once, but got batch_size=8 and"),
        (["--range", "eps_psd=1e-4:1", "--range", "eps_psd=0:1"], "`--range` has each name once"),
        (["--choices", "batch_size=8", "batch_size=9"], "`--choices` has each name once"),
        (["--range", "eps_psd=1e-4:1", "--choices", "eps_psd=1,2"], "Leave one out"),
        (["--choices", "network.kind=factor,unroled"], "Did you mean `unrolled`"),
        (["--choices", "evaluation.baselines=crb"], "Fix it with --set"),
        (["--network", "examples/free_gram.py:FreGram"], "Did you mean `FreeGram`"),
        (
            ["--network", "examples/free_gram.py:FreeGram", "--set", "network.args.rnk=3"],
            "Did you mean `rank`",
        ),
        (["--network", "examples/free_gram.py:count_entropy"], "called as count_entropy(config)"),
        (["--loss", "nowhere.py:x"], "a file that can be read"),
        (["--set", "network.args.rank=3"], "a network of yours only"),
        (["--set", "loss.weight=1"], "a loss.term only"),
        (["--preset", "smoke", "--choices", "network.kind=dictionary,unrolled"], "unrolled must"),
    ],
)
def test_a_change_that_cannot_be_is_refused_in_one_line(flags, says, capsys, tmp_path):
    assert main([*flags, "--out", str(tmp_path)]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1, said
    assert says in said[0]
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_shows_what_is_fixed_and_what_is_searched(capsys):
    flags = ["--set", "network.kind=unrolled", "--set", "epochs=3", "--range", "eps_psd=1e-3:1"]
    assert main([*flags, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "fixed      network.kind=unrolled, epochs=3\n" in said
    assert "float [0.001, 1.0]\n" in said
    assert "budget     3 epochs" in said


def test_a_resumed_run_keeps_its_changes_and_refuses_others(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("search.run._run_on_cluster", lambda *_, **__: 0)
    changes = ("--set", "network.width=24", "eps_psd=0.01", "--range", "batch_size=8:16")
    run = ["--name", "x", "--out", str(tmp_path)]
    assert main(["--preset", "smoke", *changes, *run]) == 0
    store = RunStore.open(tmp_path / "x")
    assert {"network.width", "eps_psd", "batch_size"} <= store.parameters.keys()
    assert store.plan["ranges"]["batch_size"] == {"kind": "int", "low": 8, "high": 16, "step": 1}
    resumed = ["--resume", str(tmp_path / "x")]
    assert main(resumed) == 0
    assert main([*resumed, "--set", "eps_psd=0.01", "--trials", "6"]) == 0
    assert main([*resumed, "--set", "eps_psd=0.02"]) == 2
    said = capsys.readouterr().err
    assert "got --set eps_psd=0.02 too, where it has --set network.width=24 eps_psd=0.01" in said
    assert RunStore.open(tmp_path / "x").plan["search"]["trials"] == 6
