"""Runs without a search, and one written report, which the tests of this folder share."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from search import report
from search.plan.outcome import Outcome
from search.records.store import RunStore
from search.report.data import Run
from tests import drawn_run
from tests.scored_run import REFINED, add_trial, evaluation_rows, scene_rows

ROOT = Path(report.__file__).parents[2]


@dataclass(frozen=True)
class Written:
    """Output of the command: files and printed lines.

    Attributes:
        run: 24 trials, some stopped and some diverged, the best four confirmed.
        folder: of the report.
        printed: lines, the last of which has the exit code, and which of Ray and torch it loaded.
        opened: what the browser was asked to show.
    """

    run: Run
    folder: Path
    printed: list[str]
    opened: str


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A folder that all of pytest's processes share."""
    own = tmp_path_factory.getbasetemp()
    folder = (own if worker_id == "master" else own.parent) / "reports"
    folder.mkdir(exist_ok=True)
    return folder


@contextmanager
def made_once(path: Path) -> Iterator[bool]:
    """Yield True to the one process that must make `path`; the others wait."""
    with open(path.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield not path.exists()


@pytest.fixture(scope="session")
def drawn(shared_folder: Path) -> Run:
    """A run of 24 trials, which no test may change."""
    path = shared_folder / "drawn"
    with made_once(path) as missing:
        if missing:
            drawn_run.make(shared_folder / "elsewhere" / "drawn", trials=24, confirmed=True)
            (shared_folder / "elsewhere" / "drawn").rename(path)  # a report needs no other path
    return report.load(path)


@pytest.fixture(scope="session")
def written(drawn: Run, shared_folder: Path) -> Written:
    """Its report, by the command."""
    return reported(drawn, shared_folder / "report")


@pytest.fixture(scope="session")
def compared(drawn: Run, shared_folder: Path) -> tuple[Written, Run]:
    """Its report and a comparison with a run of three trials, by one call of the command."""
    other = shared_folder / "elsewhere" / "other"
    with made_once(other) as missing:
        if missing:
            drawn_run.make(other, trials=3)
    found = reported(drawn, shared_folder / "comparison", "--compare", str(other))
    return found, report.load(other)


def reported(run: Run, folder: Path, *flags: str) -> Written:
    """Return what `search.report RUN --open` leaves in `folder`; several processes run it once."""
    said, browser, asked = (folder.with_suffix(f".{x}") for x in ("json", "browser", "asked"))
    argv = [str(run.path), "--open", "--out", str(folder), *flags]
    code = (
        "import sys; from search.report.__main__ import main;"
        "from search.report.analysis import importance; importance.SHUFFLES = 40;"
        f"status = main({argv!r}); print(status, sorted({{'ray', 'torch'}} & set(sys.modules)))"
    )
    with made_once(said) as missing:
        if missing:
            browser.write_text(f'#!/bin/sh\necho "$1" > {asked}\n')
            browser.chmod(0o755)
            done = subprocess.run(
                [sys.executable, "-c", code],
                cwd=ROOT,
                env=os.environ | {"BROWSER": f"{browser} %s"},
                capture_output=True,
                text=True,
                check=True,
            )
            said.write_text(json.dumps([done.stdout.splitlines(), asked.read_text().strip()]))
    return Written(run, folder, *json.loads(said.read_text()))


@pytest.fixture(scope="session")
def six(shared_folder: Path) -> Path:
    """A run of six trials, which no test may change."""
    path = shared_folder / "six"
    with made_once(path) as missing:
        if missing:
            drawn_run.make(path, trials=6)
    return path


@pytest.fixture
def small(six: Path, tmp_path: Path) -> Path:
    """The same, for a test to break."""
    return Path(shutil.copytree(six, tmp_path / "small"))


@pytest.fixture
def empty(tmp_path):
    plan = {"fixed": {"evaluation.objective_snr_db": [-5.0, 0.0]}}
    parameters = {"eigengap.weight": ("float", "1", "factor of the term")}
    return RunStore.create(tmp_path / "x", parameters=parameters, plan=plan)


@pytest.fixture
def baselines(empty):
    rows = [
        *evaluation_rows(None, "pinv_music", 0),
        *evaluation_rows(None, "lmmse_music", 3),
        *evaluation_rows(None, "crb", 12),
    ]
    empty.write_part("evaluations", "baselines", rows)
    empty.write_part("scenes", "baselines", scene_rows(None, "lmmse_music", 0))
    return empty


@pytest.fixture
def full(baselines):
    """Three completed trials, t001 the best; a stopped one with a smaller objective."""
    for number, objective in enumerate((0.50, 0.40, 0.45)):
        name = f"t{number:03d}"
        add_trial(
            baselines,
            number,
            objective=objective,
            evaluations=evaluation_rows(name, "network", 5 - number),
            scenes=scene_rows(name, "network", -0.1, 0.02) if number == 1 else (),
        )
    add_trial(baselines, 3, Outcome.STOPPED, 0.30, row={"epochs": 3})
    add_trial(baselines, 4, Outcome.DIVERGED, row={"cause": "nonfinite_gradient"})
    add_trial(baselines, 5, Outcome.DIVERGED, row={"cause": "nonfinite_loss"})
    return baselines


@pytest.fixture
def refined(full):
    """The same run, with the estimates of t001 refined, and the limit."""
    full.write_part("evaluations", "t001-refined", evaluation_rows("t001", REFINED, 9))
    mine = [*scene_rows("t001", "network", -0.1, 0.02), *scene_rows("t001", REFINED, -0.15)]
    full.write_part("scenes", "t001", mine)
    shared = [*scene_rows(None, "lmmse_music", 0), *scene_rows(None, "limit_shape", -0.2)]
    full.write_part("scenes", "baselines", shared)
    return full
