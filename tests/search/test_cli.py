"""Bad input at the command line: exit code 2, one line with rule, value, remedy; nothing lost."""

import io
import os
import resource
import socket
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace

import pytest

from search.driver.progress_reporter import ProgressReporter
from search.plan.config import SearchConfig
from search.plan.outcome import Outcome
from search.records.store import RunStore
from search.run import main
from trainer.__main__ import main as trainer_main
from trainer.cli import ignore_closed_output


def refused(capsys, *argv: str) -> str:
    """The one line that the command says, given that it exits with 2."""
    assert main(argv) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1, said
    return said[0]


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--preset", "smok"], "Did you mean `smoke`"),
        (["--presets", "smoke"], "Did you mean `--preset`"),
        (["--trials", "0"], "`--trials >= 1` must hold, but got 0"),
        (["--trials", "many"], "invalid int value"),
        (["--scheduler", "ahsa"], "Did you mean `asha`"),
        (["--guard", "of"], "Did you mean `off`"),
        (["--seed", "-1"], "--seed < 2"),
        (["--epochs", "0"], "--epochs >= 1"),
        (["--cpus-per-trial", "0"], "--cpus-per-trial > 0"),
        (["--gpus-per-trial", "-1"], "--gpus-per-trial is 0, a fraction"),
        (["--max-concurrent", "0"], "--max-concurrent >= 1"),
        (["--choices", "network.width=8,8"], "has each value once"),
        (["--network", "my_nets.py"], "file.py:name"),
        (["--name", "a b"], "--name is letters"),
        (["--name", ""], "--name is letters"),
        (["--preset", ""], "the preset must be one of"),
        (["--resume", ""], "RUN is a name"),
        (["--resume", "x", "--dry-run"], "Leave one out"),
        (["--seed", "5000000000"], "--seed < 2"),
        (["--cpus-per-trial", "inf"], "--cpus-per-trial > 0"),
        (["--sampler", "tpee"], "Did you mean `tpe`"),
        (["--objectives", "cost"], "--objectives is capped_error"),
        (["--trial-timeout", "0"], "0 < --trial-timeout < inf"),
        (["--name", "a/b"], "Give the last part alone, or leave --out out"),
    ],
)
def test_a_bad_option_is_refused_in_one_line(argv, says, capsys, tmp_path):
    assert says in refused(capsys, *argv, "--out", str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_rays_client_is_refused_with_what_to_do_instead(capsys, tmp_path):
    said = refused(capsys, "--address", "ray://127.0.0.1:10001", "--out", str(tmp_path))
    assert "Submit the search as a job" in said


def test_a_run_that_had_a_cluster_goes_on_without_one():
    plan = SearchConfig("smoke", 4, "x", address="10.0.0.5:6379")
    assert replace(plan, address="local").address is None


def test_an_address_where_nobody_listens_is_refused_within_seconds(capsys, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = time.monotonic()
    said = refused(capsys, "--address", f"127.0.0.1:{port}", "--out", str(tmp_path))
    assert "nothing listens" in said
    assert time.monotonic() - started < 10
    assert list(tmp_path.iterdir()) == []


@pytest.mark.ray
def test_a_ray_that_does_not_start_is_told_in_one_line():
    """Ray itself refuses here; a machine that is too busy gets the same."""
    from search.cluster.connection import start_ray
    from search.plan.errors import Refused

    with pytest.raises(Refused, match=r"a local Ray must start, but did not \(.*try again"):
        start_ray({"address": "local", "num_cpus": -1})


def test_an_existing_run_is_refused_and_left_alone(capsys, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep me")
    said = refused(capsys, "--preset", "smoke", "--name", "mine", "--out", str(tmp_path))
    assert "--resume" in said
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["notes.txt"]


def test_a_results_folder_that_is_a_file_is_refused(capsys, tmp_path):
    (tmp_path / "file").write_text("")
    assert "can be written to" in refused(capsys, "--out", str(tmp_path / "file"))


def test_a_run_that_is_not_there_is_refused_with_the_nearest_name(capsys, tmp_path):
    RunStore.create(tmp_path / "local-1", parameters={}, plan={"search": {}})
    assert "local-1" in refused(capsys, "--resume", "local-2", "--out", str(tmp_path))


@pytest.mark.parametrize("damage", ["run.json", "trials/empty.parquet"])
def test_a_corrupted_run_is_refused_and_the_file_is_named(damage, capsys, tmp_path):
    RunStore.create(tmp_path / "broken", parameters={}, plan={"search": {}})
    (tmp_path / "broken" / damage).write_bytes(b"PAR1 and no more")
    assert damage in refused(capsys, "--resume", "broken", "--out", str(tmp_path))


@pytest.mark.parametrize("plan", [{}, {"search": {"preset": "smoke"}}, {"search": {"x": 1}}])
def test_a_run_without_a_plan_is_refused(plan, capsys, tmp_path):
    RunStore.create(tmp_path / "broken", parameters={}, plan=plan)
    said = refused(capsys, "--resume", "broken", "--out", str(tmp_path))
    assert "run.json must hold the plan" in said


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["trian"], "Did you mean `train`"),
        (["train", "--sett", "x=1"], "Did you mean `--set`"),
        (["train", "--set", "x"], "NAME=VALUE"),
        (["train", "--set", "eps_psd=1", "eps_psd=2"], "Leave one out"),
        (["train", "--set", "eps_psd=-1"], "eps_psd >= 0"),
        (["train", "--out", "/dev/null"], "can be made"),
        (["replay", "nowhere", "t0001"], "a record must exist"),
        (["evaluate", "nowhere.pt"], "a checkpoint must exist"),
        (["train", "--set", 'evaluation.baselines=["lmmse_musik"]'], "Did you mean `lmmse_music`"),
        (["train", "--set", "evaluation.tolerance=-1"], "0 scores all scenes"),
        (["train", "--set", "evaluation.test_seed=-1"], "0 <= test_seed"),
        (["train", "--set", "evaluation.report_snr_db=[400]"], "abs(report_snr_db) <= 100"),
        (["train", "--set", "evaluation.report_snr_db=[NaN]"], "report_snr_db"),
    ],
)
def test_the_trainer_refuses_bad_input_in_one_line_too(argv, says, capsys):
    assert trainer_main(argv) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1, said
    assert says in said[0]


def test_a_dry_run_prints_ten_configurations_and_starts_nothing(capsys, tmp_path):
    assert main(["--preset", "local", "--dry-run", "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert sum("anchor  " in line or "sample  " in line for line in said) == 10
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("both", [False, True])
def test_a_command_outlives_who_reads_it(both):
    """The report's reader may be `head`; the search's, a terminal that is closed."""
    command = [sys.executable, "-m", "search.run", "--preset", "smoke", "--dry-run"]
    gone, end = os.pipe()
    os.close(gone)
    errors = end if both else subprocess.PIPE
    done = subprocess.run(command, stdout=end, stderr=errors, text=True)
    os.close(end)
    assert done.returncode == 0
    if not both:
        assert done.stderr == "stdout takes no more text (Broken pipe); going on without\n"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
@pytest.mark.parametrize("terminal", [False, True])
def test_what_the_output_cannot_show_is_replaced(encoding, terminal, monkeypatch):
    output = io.TextIOWrapper(io.BytesIO(), encoding)
    monkeypatch.setattr(output, "isatty", lambda: terminal)
    monkeypatch.setattr(sys, "stdout", output)
    with ignore_closed_output():
        reporter = ProgressReporter(2, Counter({Outcome.COMPLETED: 1}))
        reporter.started({"trial_id": "t0001", "about": "weight ≥ .1, Müller"}, 1, None)
        reporter.close()
        print("error ± 1°")
    shown = output.buffer.getvalue().decode(encoding)
    assert "weight ? .1, M" in shown
    assert ("±" if encoding == "latin-1" else "?") in shown.splitlines()[-1]


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        (["search.run", "--preset", "smoke", "--dry-run"], 0),
        (["trainer", "replay", "nowhere", "t0000"], 2),
    ],
)
def test_a_command_whose_output_is_closed_ends_as_it_would(argv, code):
    shell = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh"]
    assert subprocess.run([*shell, sys.executable, "-m", *argv]).returncode == code


def test_help_answers_in_under_a_second():
    """Of CPU time, whatever else the machine does."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-m", "search.run", "--help"], capture_output=True, text=True, check=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1
    assert "--resume" in done.stdout
