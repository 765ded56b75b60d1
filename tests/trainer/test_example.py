"""The losses in somebody else's training loop: the example of docs/api.md."""

import re
import runpy
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "plain_pytorch.py"


def test_thirty_lines_of_plain_pytorch_learn_the_signal_subspace(capsys):
    assert len(EXAMPLE.read_text().splitlines()) <= 30
    runpy.run_path(str(EXAMPLE))
    captured = [float(share) for share in re.findall(r": ([\d.]+) of", capsys.readouterr().out)]
    assert captured[0] < 0.3  # of a random subspace K/N = 2/16
    assert captured[-1] > 0.9
