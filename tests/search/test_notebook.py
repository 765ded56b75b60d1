"""The example notebook in real kernels, on a real Ray: a trial diverges, the search is
interrupted, its kernel is killed, and a new one goes on."""

import os
import signal
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from search.records import KEYS, RunStore, checkpoints_of, read_reports

EXAMPLES = Path(__file__).parents[2] / "examples"
NOTEBOOK = EXAMPLES / "search_in_a_notebook.ipynb"
POISONED = """

honest = FreeGram.__init__

def poisoned(self, config, *, rank=8):
    honest(self, config, rank=rank)
    steps = iter(range(1, 1000))
    if config.optimizer.learning_rate > 0.02:  # in the second epoch
        last = self.weights[2].weight
        last.register_hook(lambda g: g * torch.nan if next(steps) == 13 else g)

FreeGram.__init__ = poisoned
"""
EXTENDED = ("t0003", "t0004")
"""Trials that the last cell adds."""


def epochs_kept(run: Path) -> int:
    """Return the number of epochs of the extension that its checkpoints hold."""
    return sum(
        max((len(read_reports(place)) for place in checkpoints_of(run, name)), default=0)
        for name in EXTENDED
    )


def signal_when(ready: Callable[[], bool], number: signal.Signals, pid: int) -> None:
    """Send a signal to a process once something holds, from a thread of its own."""

    def wait() -> None:
        deadline = time.monotonic() + 300
        while not ready() and time.monotonic() < deadline:
            time.sleep(0.05)
        os.kill(pid, number)

    threading.Thread(target=wait, daemon=True).start()


@pytest.mark.ray
@pytest.mark.slow
def test_the_notebook_goes_on_after_an_interrupt_and_in_a_new_kernel_after_a_kill(
    tmp_path, address, monkeypatch
):
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, DeadKernelError

    monkeypatch.setenv("PYTHONPATH", str(EXAMPLES.parent))
    (tmp_path / "free_gram.py").write_text((EXAMPLES / "free_gram.py").read_text() + POISONED)
    book = nbformat.read(NOTEBOOK, as_version=4)
    cells = [cell for cell in book.cells if cell.cell_type == "code"]
    assert not any(cell.outputs for cell in cells), "the repository keeps no outputs"
    assert sum(len(cell.source.splitlines()) for cell in cells) <= 60
    for cell in cells:  # on the tests' Ray, no trial stopped, and scored in half the time
        own = f'scheduler="none", address="{address}"'
        cell.source = cell.source.replace("max_concurrent=2", own)
        fewer = '"scene.max_sources": 1, "epochs": 5'
        cell.source = cell.source.replace('"epochs": 5', fewer)
    *before, last = range(len(book.cells))

    def kernel() -> NotebookClient:
        return NotebookClient(book, timeout=600, resources={"metadata": {"path": str(tmp_path)}})

    first = kernel()
    with first.setup_kernel():
        for index in before:
            first.execute_cell(book.cells[index], index)
        (run,) = (tmp_path / "runs").iterdir()
        kept = 0
        for number, ended in (
            (signal.SIGINT, pytest.raises(CellExecutionError, match="KeyboardInterrupt")),
            (signal.SIGKILL, pytest.raises(DeadKernelError)),
        ):
            wait = partial(lambda least: epochs_kept(run) >= least, kept + 1)
            signal_when(wait, number, first.km.provisioner.pid)
            with ended:
                first.execute_cell(book.cells[last], last)
            kept = epochs_kept(run)
    assert not {*EXTENDED} <= RunStore.open(run).ended(), "killed too late"

    second = kernel()
    with second.setup_kernel():
        again = f'from search import open_run, run_search\nrun = open_run("{run.name}")'
        book.cells.append(nbformat.v4.new_code_cell(again))
        second.execute_cell(book.cells[-1], last + 1)
        second.execute_cell(book.cells[last], last)
    store = RunStore.open(run)
    trials, epochs = store.read("trials").set_index("trial_id"), store.read("epochs")
    assert trials["outcome"].to_dict() == {
        f"t{number:04d}": "diverged" if number == 1 else "completed" for number in range(5)
    }
    assert not epochs.duplicated(list(KEYS["epochs"])).any()
    assert epochs.groupby("trial_id")["epoch"].apply(list).to_dict() == {
        name: [1] if name == "t0001" else [1, 2, 3, 4, 5] for name in trials.index
    }
    (failure,) = store.read("failures").to_dict("records")
    assert (failure["trial_id"], failure["tensor"]) == ("t0001", "weights.2.weight")
    said = "".join(output.get("text", "") for output in book.cells[last].outputs)
    assert "again, from epoch" in said
    assert any("image/png" in output.get("data", {}) for cell in cells for output in cell.outputs)
    assert (run / "report" / "index.html").exists()
