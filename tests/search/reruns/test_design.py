"""Designs of networks, regimes and terms: read, refused, carried out and gone on with."""

import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from search import ablate
from search.records.schema import KEYS
from search.records.store import RunStore
from search.report.data import load
from search.reruns.design import Design
from search.reruns.factorial import Experiment
from search.run import main as search
from tests.local_ray import install
from tests.stored import unfinished
from trainer.config import COUNT_RULES

TEXT = """
seeds = 2
scenes = 4
validation_scenes = 3

[set]
epochs = 1
steps_per_epoch = 2
batch_size = 8
network.width = 8

[networks.dictionary]
network.kind = "dictionary"
[networks.own]
network.kind = "{code}:FreeGram"

[regimes.few]
scene.num_snapshots = 4

[terms.none]
optimizer.learning_rate = [0.01, 0.02]
[terms.count]
eigengap.definition = "count"
eigengap.temperature = 16.0
eigengap.weight = [0.1, 1.0]
[terms.own]
loss.term = "{code}:count_entropy"
loss.weight = [0.1, 1.0]
"""
CODE = Path(__file__).parents[3] / "examples" / "free_gram.py"
DESIGN = TEXT.format(code=CODE)
FEW = "[set]\nevaluation.num_scenes = 4\nevaluation.objective_snr_db = [0.0]"


def tiny(term: str) -> str:
    """Return the design with the user's network alone, `none` and one more term, and nothing to
    choose: six trainings."""
    text = DESIGN.replace("seeds = 2", "seeds = 2\nsnr_db = [0.0]").replace("[set]", FEW)
    text = text.replace('[networks.dictionary]\nnetwork.kind = "dictionary"\n', "")
    text = text.replace("[0.01, 0.02]", "[0.02]").replace("[0.1, 1.0]", "[1.0]")
    head, *terms = text.split("[terms.")
    kept = [one for one in terms if one.partition("]")[0] in ("none", term)]
    return "[terms.".join([head, *kept])


def written(folder: Path, text: str = DESIGN) -> Path:
    """Return the file of a design."""
    path = folder / "small.toml"
    path.write_text(text)
    return path


def of(tmp_path, text: str = DESIGN) -> Design:
    return Design.read(str(written(tmp_path, text)))


class Stand:
    """Trains and scores nothing: a training's loss is a function of its configuration."""

    def __init__(self, store, loss, fails=lambda config: False):
        self.request = SimpleNamespace(store=store)
        self.loss, self.fails, self.trained = loss, fails, []

    def train(self, reruns, total):
        self.trained += reruns
        return {one.name: "diverged" for one in reruns if self.fails(one.config)}

    def count(self, reruns, scenes):
        for one in reruns:
            loss = self.loss(one.config)
            rows = [
                {
                    "trial_id": one.name,
                    "estimator": "network",
                    "seed": one.seed,
                    "evaluation_seed": part.seed,
                    "changes": one.changes,
                    "scene_id": scene,
                    "snr_db": snr_db,
                    "num_sources": 1,
                    "capped_error": loss + scene / 100,
                    "success": 0.5,
                    **{f"source_number_{rule}": scene % 2 for rule in COUNT_RULES},
                    **{f"gospa_{rule}": loss for rule in COUNT_RULES},
                }
                for part in scenes
                for snr_db in part.snr_db
                for scene in range(part.num_scenes)
            ]
            self.request.store.write_part("scenes", one.name, rows)


def carried_out(tmp_path, loss, **more):
    design = of(tmp_path)
    store = RunStore.create(tmp_path / "x", parameters={}, plan={})
    stand = Stand(store, loss, **more)
    notes = Experiment(design, stand, "x").run()
    return design, stand, store, notes


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A design carried out."""
    return carried_out(tmp_path_factory.mktemp("done"), rate_and_weight)


def rate_and_weight(config) -> float:
    """Least at a rate of .02 and the larger weight of `count`, the smaller of `own`."""
    own = config.loss.weight or 0.0
    return 0.5 - 10 * config.optimizer.learning_rate - config.eigengap.weight / 10 + own / 10


def test_a_search_takes_the_best_value_and_every_term_the_rate_that_none_has_found(done):
    design, stand, _, notes = done
    assert notes == []
    assert len(stand.trained) == design.num_trainings == 6 * (2 + 2)
    final = [one.config for one in stand.trained if one.seed > 0]
    assert {config.optimizer.learning_rate for config in final} == {0.02}
    assert {config.eigengap.weight for config in final} == {0.0, 1.0}
    assert {config.loss.weight for config in final} == {None, 0.1}
    # searches of terms begin once that of none has ended
    first = [one.config for one in stand.trained[:4]]
    assert all(c.eigengap.weight == 0 and c.loss.weight is None for c in first)
    assert {one.config.optimizer.learning_rate for one in stand.trained[4:]} == {0.02}


def test_arms_share_seeds_and_scenes_which_are_not_those_of_the_search(done):
    _, _, store, _ = done
    rows = store.read("ablations")
    assert not rows.duplicated(list(KEYS["ablations"])).any()
    tested = rows[rows["evaluation_seed"] == 3_000_003]
    key = ["seed", "snr_db", "num_sources", "rule"]
    arms = [
        own[key].fillna("").to_numpy().tolist() for _, own in tested.groupby(["network", "arm"])
    ]
    assert len(arms) == 6
    assert all(sorted(own) == sorted(arms[0]) for own in arms)
    assert set(tested["seed"]) == {1, 2}
    searched = rows[rows["seed"] == 0]
    assert set(searched["evaluation_seed"]) == {4_000_003}


def test_rows_of_ablations_are_means_of_the_scenes(done):
    _, _, store, _ = done
    rows, scenes = store.read("ablations"), store.read("scenes")
    key = ["trial_id", "evaluation_seed", "snr_db", "num_sources"]
    told = rows[rows["rule"].isna()].set_index(key).sort_index()
    by_hand = scenes.groupby(key)["capped_error"].mean()
    pd.testing.assert_series_equal(told["capped_error"], by_hand, check_exact=False)
    counted = rows[rows["rule"] == "mdl"].set_index(key).sort_index()
    right = (scenes["source_number_mdl"] == 1).groupby([scenes[k] for k in key]).mean()
    assert (counted["source_number_accuracy"] == right).all()


def test_a_training_that_fails_is_named_and_cannot_be_chosen(tmp_path):
    def fails(config):
        return config.eigengap.weight == 1.0 or (
            config.loss.weight is not None and config.network.kind == "dictionary"
        )

    _, stand, store, notes = carried_out(tmp_path, rate_and_weight, fails=fails)
    final = [one.config for one in stand.trained if one.seed > 0]
    assert {config.eigengap.weight for config in final} == {0.0, 0.1}
    assert any("dictionary, few, own: no training of its search completed" in n for n in notes)
    rows = store.read("ablations")
    lost = rows[rows["num_scenes"] == 0]
    assert set(lost["arm"]) == {"count", "own"}
    assert lost["capped_error"].isna().all()


def test_the_same_design_gives_the_same_trainings(done):
    design, stand, store, _ = done
    again = Stand(store, rate_and_weight)
    before = store.read("ablations")
    Experiment(design, again, "x").run()
    assert [one.name for one in again.trained] == [one.name for one in stand.trained]
    pd.testing.assert_frame_equal(store.read("ablations"), before)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("seeds = 2", "seeds = 1", "`seeds >= 2` must hold, but got 1"),
        ("seeds = 2", "sedes = 2", "Did you mean `seeds`"),
        ("seeds = 2", "seeds = [", "is a TOML file, but"),
        ("seeds = 2", 'select = "gosba"', "Did you mean `gospa`"),
        ("seeds = 2", "margins = {capped_eror = 0.1}", "Did you mean `capped_error`"),
        ("seeds = 2", "margins = {capped_error = 0}", "`margins.capped_error > 0` must hold"),
        ("seeds = 2", "snr_db = []", "`snr_db is not empty` must hold"),
        ("seeds = 2", 'preset = "locl"', "locl"),
        ("[terms.none]", "[terms.nought]", "`a design has the term `none` and another`"),
        ("[0.1, 1.0]", "0.1", "has one field with a list"),
        ("[0.1, 1.0]", "[0.1]", "`searches of terms are equally long` must hold"),
        ("[0.1, 1.0]", "[0.1, -1.0]", "dictionary, few, count: `eigengap.weight >= 0`"),
        ("[0.01, 0.02]", "[0.01, 0.02]\neigengap.weight = 0.1", "has no loss term"),
        ("eigengap.temp", "eigengap.tmep", "tmep"),
        ("scene.num_snapshots = 4", "scene.num_snapshots = 2", "few, count: `scene.max_sources <"),
        ("free_gram.py:FreeGram", "free_gram.py:FreeGran", "Did you mean `FreeGram`"),
        ("[regimes.few]", "[regimes.'a few']", "`names of regimes are words` must hold"),
        ("[regimes.few]", "[regime.few]", "Did you mean `regimes`"),
    ],
)
def test_a_bad_design_is_refused_in_one_line(tmp_path, old, new, says, capsys):
    file = written(tmp_path, DESIGN.replace(old, new, 1))
    assert ablate.main(["--design", str(file), "--out", str(tmp_path / "runs")]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1, said
    assert says in said[0]
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["x"], "got RUN too"),
        (["--seeds", "3"], "got --seeds too"),
        (["--scene-seed", "3"], "got --scene-seed too"),
        (["--term", "eigengap"], "not allowed with argument"),
        (["--name", "a b"], "--name: a part or trial name"),
    ],
)
def test_what_a_design_says_is_not_said_again(tmp_path, more, says, capsys):
    assert ablate.main(["--design", str(written(tmp_path)), *more]) == 2
    assert says in capsys.readouterr().err
    assert ablate.main(["--term", "eigengap"]) == 2
    assert "no RUN was given" in capsys.readouterr().err


def test_a_dry_run_prints_what_it_costs_and_makes_nothing(tmp_path, capsys):
    out = tmp_path / "runs"
    file = written(tmp_path)
    assert ablate.main(["--design", str(file), "--out", str(out), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "6 arms" in said
    assert "24: for each arm 2 of its search and 2 seeds; 0 are done" in said
    assert "min of one worker" in said
    assert not out.exists()


def test_a_run_has_one_design_and_is_no_search(tmp_path, capsys):
    design = of(tmp_path)
    plan = {"search": {}, "design": design.as_dict()}
    store = RunStore.create(tmp_path / "runs" / "small", parameters={}, plan=plan)
    file = written(tmp_path, DESIGN.replace("seeds = 2", "seeds = 3"))
    assert ablate.main(["--design", str(file), "--out", str(tmp_path / "runs")]) == 2
    assert "a run has one design, but" in capsys.readouterr().err
    assert search(["--resume", str(store.path)]) == 2
    assert "search.ablate --design" in capsys.readouterr().err


@pytest.mark.slow
def test_a_design_with_a_users_network_and_loss_is_carried_out_and_goes_on(tmp_path, monkeypatch):
    """In this process, in place of Ray's workers."""
    install(monkeypatch)
    flags = ["--design", str(written(tmp_path, tiny("own"))), "--out", str(tmp_path / "runs")]
    flags += ["--max-concurrent", "1"]
    assert ablate.main(flags) == 0
    run = tmp_path / "runs" / "small"
    loaded = load(run)
    assert loaded.notes == ()
    assert len(loaded.trials) == 2 * 3
    assert set(loaded.trials["outcome"]) == {"completed"}
    assert loaded.plan["design"]["sha256"] == Design.read(flags[1]).sha256
    assert {(run / "code" / CODE.name).read_text()} == {CODE.read_text()}
    rows = loaded.tables["ablations"]
    assert set(rows["rule"].dropna()) == set(COUNT_RULES)
    assert rows["capped_error"].between(0, 1).sum() == rows["rule"].isna().sum()

    store = RunStore.open(run)
    last = loaded.trials.sort_values("number")["trial_id"].iloc[-1]
    unfinished(store, last)
    (run / "scenes" / f"{last}.parquet").unlink()
    kept = {p: p.stat().st_mtime_ns for p in (run / "scenes").glob("*.parquet")}
    (run / "ablations" / "small.parquet").unlink()
    assert ablate.main(flags) == 0
    assert {p: p.stat().st_mtime_ns for p in kept} == kept
    pd.testing.assert_frame_equal(load(run).tables["ablations"], rows)


def trained(run: Path) -> set[str]:
    """Return the trainings of a run that have ended."""
    return RunStore.open(run).ended() if (run / "run.json").exists() else set()


@pytest.mark.ray
@pytest.mark.slow
def test_a_design_that_was_killed_goes_on(address, tmp_path):
    """On a real Ray, with a user's network; the driver that is killed in a process of its own."""
    file = written(tmp_path, tiny("count"))
    run = tmp_path / "runs" / "small"
    flags = ["--design", str(file), "--out", str(run.parent), "--address", address]
    flags += ["--max-concurrent", "1"]  # every worker is a process that loads torch
    first = subprocess.Popen([sys.executable, "-m", "search.ablate", *flags])
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and not trained(run):
        assert first.poll() is None, "it has ended by itself"
        time.sleep(0.1)
    first.send_signal(signal.SIGKILL)
    first.wait()
    before = RunStore.open(run).read("trials")
    assert 0 < len(before) < 6
    assert ablate.main(flags) == 0
    after = load(run)
    assert after.notes == ()
    assert list(after.trials["outcome"]) == ["completed"] * 6
    kept = after.trials.set_index("trial_id").loc[before["trial_id"], "ended"]
    assert kept.tolist() == before["ended"].tolist()
    rows = after.tables["ablations"]
    assert not rows.duplicated(list(KEYS["ablations"])).any()
    assert set(rows["seed"]) == {0, 1, 2}
