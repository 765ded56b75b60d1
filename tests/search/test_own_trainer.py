"""A search of a user's own trainer, in this process (`tests.local_ray`): its tables hold what it
reported, it is resumed, and nothing goes on with another file."""

import os
import re
from pathlib import Path

import pytest

from search import ablate, confirm, open_run
from search.plan import SearchConfig
from search.records import KEYS, RunStore, checkpoints_of
from search.report.__main__ import main as report
from search.run import main
from spaces import Choice, Float, Int
from trainer import user_code
from trainer.__main__ import main as trainer_main

CODE = """
from spaces import Space

def train(params, *, resume=None):
    for epoch in range(1 + (resume or 0), params["epochs"] + 1):
        bad = params["poison"] and epoch == 2
        score = float("nan") if bad else params["x"] * epoch
        yield {"epoch": epoch, "score": score, "extra": 3, "state": epoch}

def suggest(trial):
    x = trial.suggest_float("x", 0, 1)
    return {"x": x, "poison": trial.suggest_categorical("poison", [0, 1])}

anchors = ({"x": 0.5, "poison": 0}, {"x": 0.75, "poison": 1})
space = Space("mine", "For tests.", suggest, anchors, fixed={"epochs": 4, "text": "a"}, trials=4)
"""


@pytest.fixture
def code(tmp_path, local_ray, monkeypatch):
    """Return the file with the user's code."""
    monkeypatch.setattr(user_code, "_given", {})  # the texts of the workers in this process
    path = tmp_path / "mine.py"
    path.write_text(CODE)
    return path


def flags(code: Path, *more: str) -> list[str]:
    own = ["--trainable", f"{code}:train", "--space", f"{code}:space", "--objective", "score:max"]
    return [*own, "--out", str(code.parent), "--name", "x", "--max-concurrent", "1", *more]


def test_a_search_maximises_and_keeps_every_number(code, capsys):
    assert main(flags(code, "--scheduler", "none", "--sampler", "random")) == 0
    said = capsys.readouterr().out
    store = RunStore.open(code.parent / "x")
    best = open_run(store.path).best()
    assert "x: score, mean over the last epochs; higher is better" in said
    assert f"completed, best  {-best.objective:.3f}" in re.sub(" {2,}", "  ", said)
    assert best.state() == 4  # the epoch of the highest score
    trials, epochs = store.read("trials"), store.read("epochs")
    poisoned = trials["params.poison"] == 1
    assert list(trials["outcome"]) == ["diverged" if bad else "completed" for bad in poisoned]
    scores = epochs.groupby("trial_id")["metrics.score"]
    last_two = scores.apply(lambda own: own.tail(2).mean())  # a fifth of the budget, at least two
    for row in trials[~poisoned].itertuples():
        assert row.objective == pytest.approx(-last_two[row.trial_id], rel=1e-12)
    assert set(epochs["metrics.extra"]) == {3.0}
    assert set(store.read("failures")["term"]) == {"score"}
    assert set(store.read("failures")["epoch"]) == {2}
    assert not epochs.duplicated(list(KEYS["epochs"])).any()


@pytest.mark.slow
def test_every_trial_is_replayed_and_the_report_has_the_parts_that_apply(code, capsys):
    assert main(flags(code, "--scheduler", "none", "--trials", "12")) == 0
    store = RunStore.open(code.parent / "x")
    for name in store.started():
        assert trainer_main(["replay", str(store.path), name]) == 0
        assert "reproduced, bit for bit" in capsys.readouterr().out
    assert report([str(store.path)]) == 0
    page = (store.path / "report" / "index.html").read_text()
    assert "Objective (minus score) of every trial" in page
    assert "score, mean over the last epochs; higher is better" in page
    for absent in ("SNR", "MUSIC", "capped", "eigenvalue", "search.confirm"):
        assert absent not in page, absent


def test_a_driver_killed_between_epochs_loses_and_doubles_none(code, monkeypatch):
    kill = KeyboardInterrupt("as if killed")
    dying = CODE.replace(
        '        yield {"epoch"', '        train.hook(epoch)\n        yield {"epoch"'
    )
    code.write_text(dying + "\ntrain.hook = lambda epoch: None\n")
    own = {"space_from": f"{code}:space", "trainable": f"{code}:train", "objective": "score"}
    plan = SearchConfig("mine", 4, "x", **own)
    function = plan.own_trainer.check().func

    def hook(epoch):
        if epoch == 3:
            raise kill

    function.hook = hook
    assert main(flags(code, "--scheduler", "none")) == 130
    store = RunStore.open(code.parent / "x")
    assert store.ended() == set()
    assert len(checkpoints_of(store.path, "t0000")) == 1
    resumed = []
    function.hook = resumed.append
    assert main(["--resume", str(store.path)]) == 0
    assert resumed[:2] == [3, 4]  # from the state after the second epoch
    epochs = store.read("epochs").groupby("trial_id")["epoch"].apply(list)
    assert epochs["t0000"] == [1, 2, 3, 4]
    assert epochs["t0001"] == [1]
    assert list(store.read("epochs")["metrics.score"][:4]) == [0.5, 1.0, 1.5, 2.0]


def test_what_goes_on_with_a_run_refuses_a_changed_file_by_name(code, capsys, monkeypatch):
    assert main(flags(code)) == 0
    run = str(code.parent / "x")
    assert (code.parent / "x" / "code" / code.name).read_text() == CODE
    code.write_text(CODE + "# changed\n")
    monkeypatch.setattr(user_code, "_given", {})
    capsys.readouterr()
    for command in (
        lambda: main(["--resume", run, "--trials", "9"]),
        lambda: main(["--resume", run, "--trials", "9", "--accept-space-change"]),
        lambda: trainer_main(["replay", run, "t0000"]),
        lambda: confirm.main([run]),
    ):
        assert command() == 2
        (said,) = capsys.readouterr().err.strip().splitlines()
        assert f"{code} has changed: its SHA-256 is" in said
        assert "--warm-start OLD --name NEW" in said
    code.write_text(CODE)
    assert confirm.main([run, "--dry-run", "--scenes", "4"]) == 2
    assert "are of our scenes" in capsys.readouterr().err
    assert ablate.main([run, "--set", "x=1"]) == 2
    assert "an ablation compares terms of our loss" in capsys.readouterr().err


def test_finalists_are_trained_again_on_fresh_seeds_and_compared_by_the_objective(code, capsys):
    seeded = 'params["x"] * epoch + params["seed"] % 7 / 100 * (params["x"] == 0.5)'
    code.write_text(CODE.replace('params["x"] * epoch', seeded))
    assert main(flags(code, "--scheduler", "none", "--trials", "2", "--set", "poison=0")) == 0
    capsys.readouterr()
    run = str(code.parent / "x")
    assert confirm.main([run, "--top", "2", "--seeds", "2"]) == 0
    said = re.sub(" {2,}", "  ", capsys.readouterr().out)
    reruns = RunStore.open(code.parent / "x" / "reruns")
    trials = reruns.read("trials")
    assert set(trials["outcome"]) == {"completed"}
    assert sorted(trials["seed"]) == [10000, 10010, 20000, 20010]  # of t0000 and t0001
    # of the anchors, x = 0.5 with 10000 % 7 = 4 and 10010 % 7 = 0, and x = 0.75
    assert "t0000  1.750  1.770 [1.516, 2.024]  +0.020  2  2 -> 2" in said
    assert "t0001  2.625  2.625 [2.625, 2.625]  +0.000  2  1 -> 1" in said
    assert "t0000 - t0001: -0.855 [" in said
    assert "All seeds of t0001 gave one value: does `train` use `seed`?" in said
    assert trainer_main(["replay", str(reruns.path), trials["trial_id"][0]]) == 0
    capsys.readouterr()
    assert confirm.main([run, "--top", "2", "--seeds", "2", "--dry-run"]) == 0
    assert "4, of which 4 are done" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ('"state": epoch}', '"state": lambda: 0}', "`state` must be what pickle takes"),
        ("        yield", "        return\n        yield", "it yielded none"),
    ],
)
def test_a_lie_ends_the_search_at_once(before, after, says, code):
    assert before in CODE
    code.write_text(CODE.replace(before, after))
    assert main(flags(code, "--scheduler", "none")) == 1
    trials = RunStore.open(code.parent / "x").read("trials")
    assert list(trials["outcome"]) == ["invalid"]
    assert trials["error"].str.contains(says, regex=True).all()


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--set", "poisn=1"], "Did you mean `poison`"),
        (["--set", "x=high"], "x is a number, as in the space"),
        (["--choices", "x=.1,high"], "x is a number, as in the space"),
        (["--range", "text=1:3"], "text is a str. Use --choices"),
        (["--range", "epochs=1:3"], "trials have one epochs"),
        (["--network", "a.py:b"], "--trainable replaces all of our training, but got --network"),
        (["--preset", "smoke"], "--trainable replaces all of our training, but got --preset"),
        (["--objective", "score:more"], "--objective is NAME, NAME:min or NAME:max"),
        (["--objectives", "cost,score"], "--objectives is score or score,cost"),
        (["--trainable", "nowhere.py:train"], "a file that can be read"),
    ],
)
def test_flags_that_make_no_sense_are_refused_in_one_line(more, says, code, capsys):
    assert main(flags(code, "--dry-run", *more)) == 2
    (said,) = capsys.readouterr().err.strip().splitlines()
    assert says in said


def import_elsewhere(own):
    """Import the trainer as a worker without that variable."""
    del os.environ["HERE"]
    user_code._loaded.clear()
    own.check()


def test_a_worker_that_cannot_import_it_is_found_before_anything_starts(code, capsys, monkeypatch):
    code.write_text("import os\nos.environ['HERE']\n" + CODE)
    monkeypatch.setenv("HERE", "")
    monkeypatch.setattr(user_code, "_loaded", dict(user_code._loaded))
    monkeypatch.setattr("search.cluster.checks.import_own", import_elsewhere)
    assert main(flags(code)) == 2
    said = capsys.readouterr().err
    assert "a worker must be able to import" in said
    assert "KeyError: 'HERE'" in said
    assert not (code.parent / "x").exists()


def test_a_plan_reads_back_what_it_is(code):
    own = {"space_from": f"{code}:space", "trainable": f"{code}:train"}
    plan = SearchConfig("mine", 4, "x", **own, objective="score:max", epochs=7)
    assert SearchConfig(**plan.as_dict()) == plan
    assert plan.objectives == ("score",)
    config = plan.config({"x": 0.5, "poison": 0})
    assert config.to_params() == {"epochs": 7, "seed": 0, "x": 0.5, "poison": 0, "text": "a"}


def test_changes_have_the_types_of_the_space(code):
    code.write_text(CODE.replace('"text": "a"', '"n": 1, "text": "a", "of": [8]'))
    own = {"space_from": f"{code}:space", "trainable": f"{code}:train", "objective": "score"}

    def ranges(*flags):
        return [*SearchConfig("mine", 4, "x", **own, ranges=flags).changes.ranges.values()]

    sets = ("n=.5", "text=3", "of=8,.5", "x=.25", "poison=1")
    values = SearchConfig("mine", 4, "x", **own, settings=sets).changes.values
    assert values == {"n": 0.5, "text": "3", "of": [8, 0.5], "x": 0.25, "poison": 1}
    choices = SearchConfig("mine", 4, "x", **own, choices=("x=.1,.2",)).changes.ranges
    assert choices == {"x": Choice((0.1, 0.2))}
    assert ranges("x=0:2", "n=1:3") == [Float(0.0, 2.0), Int(1, 3)]
    assert ranges("x=.1:.9", "n=.5:3") == [Float(0.1, 0.9), Float(0.5, 3.0)]
    assert type(ranges("x=0:2")[0].low) is float
