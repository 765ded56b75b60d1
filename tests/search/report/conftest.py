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
from search.report.data import Run
from tests import drawn_run

ROOT = Path(report.__file__).parents[2]


@dataclass(frozen=True)
class Written:
    """Output of the command: files and printed lines.

    Attributes:
        run: 24 trials, some stopped and some diverged, the best four confirmed.
        other: three trials.
        printed: lines, the last of which has the exit code, and which of Ray and torch it loaded.
        opened: what the browser was asked to show.
    """

    run: Run
    other: Run
    printed: list[str]
    opened: str

    @property
    def folder(self) -> Path:
        """Folder of the report."""
        return self.run.path / "report"


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
    """Its report and a comparison, by one call of the command."""
    said = shared_folder / "written.json"
    with made_once(said) as missing:
        if missing:
            drawn_run.make(shared_folder / "other", trials=3)
            said.write_text(json.dumps(reported(drawn.path, shared_folder / "other")))
    printed, opened = json.loads(said.read_text())
    return Written(drawn, report.load(shared_folder / "other"), printed, opened)


def reported(run: Path, other: Path) -> tuple[list[str], str]:
    """Return what `search.report RUN --open --compare OTHER` prints, and what it asks a browser
    for."""
    asked = run.with_name("asked")
    browser = run.with_name("browser")
    browser.write_text(f'#!/bin/sh\necho "$1" > {asked}\n')
    browser.chmod(0o755)
    argv = [str(run), "--open", "--compare", str(other)]
    code = (
        "import sys; from search.report.__main__ import main;"
        "from search.report.analysis import importance; importance.SHUFFLES = 40;"
        f"status = main({argv!r}); print(status, sorted({{'ray', 'torch'}} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | {"BROWSER": f"{browser} %s"},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines(), asked.read_text().strip()


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
