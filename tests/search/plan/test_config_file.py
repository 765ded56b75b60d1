"""A file of flags stands for the same flags on the command line, which win."""

import pytest

from search.plan import SearchConfig, parser, with_config_file
from search.run import main, plan_from_flags

TOML = """
preset = "smoke"
trials = 6
name = "x"
cpus_per_trial = 2
objectives = ["capped_error", "cost"]
no-preflight = true

[set]
"scene.num_antennas" = 16
evaluation.objective_snr_db = [-10, -5]
network.width = 24

[range]
eps_psd = [1e-5, 0.01, "log"]
batch_size = "8:16"

[choices]
network.depth = [2, 3]
eigengap.definition = ["gap", "leak"]
"""
FLAGS = [
    *("--preset", "smoke", "--trials", "6", "--name", "x", "--cpus-per-trial", "2"),
    *("--objectives", "capped_error,cost", "--no-preflight", "--set", "scene.num_antennas=16"),
    *("evaluation.objective_snr_db=[-10, -5]", "network.width=24"),
    *("--range", "eps_psd=1e-05:0.01:log", "batch_size=8:16"),
    *("--choices", "network.depth=2,3", "eigengap.definition=gap,leak"),
]


def planned(*argv: str) -> SearchConfig:
    return plan_from_flags(with_config_file(parser().parse_args(argv)))


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(TOML)
    return path


def test_a_file_is_the_same_plan_as_its_flags(file):
    assert planned("--config", str(file)) == planned(*FLAGS)


def test_flags_win_field_by_field(file):
    flags = ("--trials", "3", "--set", "network.width=32", "eps_psd=0.1", "--range")
    plan = planned("--config", str(file), *flags, "eigengap.weight=0.1:0.5")
    assert plan.trials == 3
    assert plan.changes.values["network.width"] == 32
    assert plan.changes.values["eps_psd"] == 0.1  # which the file searches
    assert plan.changes.values["scene.num_antennas"] == 16
    assert plan.changes.ranges.keys() == {
        *("batch_size", "network.depth", "eigengap.definition", "eigengap.weight"),
    }


@pytest.mark.parametrize(
    ("flags", "settings"),
    [
        ([], {"network.kind=unrolled", "loss.term=a.py:b", "loss.weight=0.5"}),
        (["--network", "c.py:D"], {"network.kind=c.py:D", "loss.term=a.py:b", "loss.weight=0.5"}),
        (["--loss", "e.py:f"], {"network.kind=unrolled", "loss.term=e.py:f", "loss.weight=0.5"}),
        (["--range", "loss.weight=1:2"], {"network.kind=unrolled", "loss.term=a.py:b"}),
    ],
)
def test_flags_win_over_code_that_the_file_names(flags, settings, tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text('loss = "a.py:b"\n[set]\nnetwork.kind = "unrolled"\nloss.weight = 0.5\n')
    args = with_config_file(parser().parse_args(["--config", str(file), *flags]))
    assert set(args.settings) == settings
    assert len(args.settings) == len(settings)


def test_the_file_is_kept_in_the_run_and_resumes_it(file, tmp_path, monkeypatch):
    monkeypatch.setattr("search.run._run_on_cluster", lambda *_, **__: 0)
    assert main(["--config", str(file), "--out", str(tmp_path)]) == 0
    assert (tmp_path / "x" / "run.toml").read_text() == TOML
    assert main(["--config", str(file), "--out", str(tmp_path), "--resume", "x"]) == 0


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("trails = 6", "Did you mean `--trials`"),
        ("trials = 'many'", "invalid int value"),
        ("trials = x\n", "Invalid value (at line 1"),
        ("[set]\nnetwork.kimd = 'factor'", "Did you mean `network.kind`"),
        ("[set]\nnetwork.width = 1.5", "of type int"),
        ("[range]\neps_psd = [1e-5]", "NAME=LOW:HIGH"),
        ("[sett]\nx = 1", "Did you mean `--set`"),
    ],
)
def test_a_file_that_holds_no_flags_is_refused_in_one_line(text, says, tmp_path, capsys):
    file = tmp_path / "bad.toml"
    file.write_text(text)
    assert main(["--config", str(file), "--dry-run"]) == 2
    (said,) = capsys.readouterr().err.strip().splitlines()
    assert says in said


def test_a_file_that_is_not_there_is_named(capsys):
    assert main(["--config", "nowhere.toml", "--dry-run"]) == 2
    assert "nowhere.toml" in capsys.readouterr().err
