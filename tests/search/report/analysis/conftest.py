"""Runs with an ablation, for the tests of ablations and of confirmations."""

import shutil
from functools import cache

import pytest

from search.records.store import RunStore
from search.report.data import Run
from tests.ablated_run import make


@pytest.fixture(scope="module")
def run_with(tmp_path_factory):
    """Makes runs whose arm `with` errs by `effect` more at every SNR of the objective; each is
    made once, so no test may change them."""

    @cache
    def made(effect: float, *, trials: int = 5, seeds: int = 5, acts: float = 0.8) -> Run:
        return make(tmp_path_factory.mktemp("runs") / "x", effect, trials, seeds, acts)

    return made


@pytest.fixture
def copy_of(tmp_path):
    """Copies runs, for a test to change."""
    return lambda run: RunStore.open(shutil.copytree(run.path, tmp_path / "x"))
