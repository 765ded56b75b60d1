"""The example notebook in a real kernel, on a real Ray: it runs, stops and goes on."""

import os
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest

from search.records import RunStore

EXAMPLES = Path(__file__).parents[2] / "examples"
NOTEBOOK = EXAMPLES / "search_in_a_notebook.ipynb"


@pytest.mark.ray
@pytest.mark.slow
def test_the_notebook_runs_and_goes_on_after_an_interrupt(tmp_path, address, monkeypatch):
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    monkeypatch.setenv("PYTHONPATH", str(EXAMPLES.parent))
    shutil.copy(EXAMPLES / "free_gram.py", tmp_path)
    book = nbformat.read(NOTEBOOK, as_version=4)
    cells = [cell for cell in book.cells if cell.cell_type == "code"]
    assert not any(cell.outputs for cell in cells), "the repository keeps no outputs"
    assert sum(len(cell.source.splitlines()) for cell in cells) <= 60
    for cell in cells:  # on the tests' Ray
        cell.source = cell.source.replace("max_concurrent=2", f'address="{address}"')
    client = NotebookClient(book, timeout=300, resources={"metadata": {"path": str(tmp_path)}})

    def interrupt() -> None:
        while not list(tmp_path.glob("runs/*/ray/t0003*/checkpoint_*")):
            time.sleep(0.05)
        os.kill(client.km.provisioner.pid, signal.SIGINT)

    with client.setup_kernel():
        *before, last = range(len(book.cells))
        for index in before:
            client.execute_cell(book.cells[index], index)
        threading.Thread(target=interrupt, daemon=True).start()
        with pytest.raises(CellExecutionError, match="KeyboardInterrupt"):
            client.execute_cell(book.cells[last], last)
        client.execute_cell(book.cells[last], last)
    (run,) = (tmp_path / "runs").iterdir()
    trials = RunStore.open(run).read("trials")
    assert list(trials["trial_id"]) == [f"t{number:04d}" for number in range(5)]
    assert trials["outcome"].isin(["completed", "stopped"]).all()
    assert any("image/png" in output.get("data", {}) for cell in cells for output in cell.outputs)
    assert (run / "report" / "index.html").exists()
