"""The tables are documented column by column, and the documented pandas lines run."""

import re
from pathlib import Path

import pandas as pd
import pytest

from search.schema import KEYS, TABLES, columns
from search.store import RunStore

DOCS = (Path(__file__).parents[1] / "docs" / "results.md").read_text()
PARAMETERS = {"eigengap.weight": ("float", "1", "factor of the term")}


@pytest.mark.parametrize("table", TABLES)
def test_every_column_is_documented_with_type_unit_and_meaning(table):
    section = DOCS.split(f"## {table}/\n")[1].split("\n## ")[0]
    rows = [row for row in section.splitlines() if row.startswith("| `")]
    documented = [row for row in rows if not row.startswith("| `params.")]
    assert documented == [
        f"| `{c.name}` | {c.type} | {c.unit} | {c.about} |" for c in TABLES[table]
    ]
    for name in KEYS[table]:
        assert f"`{name}`" in section.split("\n| column")[0]


def test_names_are_unique_and_units_are_known():
    for table in TABLES:
        known = columns(table, PARAMETERS)
        assert len({c.name for c in known}) == len(known)
        for column in known:
            assert column.unit in {"", "1", "s", "dB", "deg", "B", "epochs", "UTC"}, column
            assert column.type != "float" or column.unit, column  # a measured number has a unit


def test_one_word_is_one_thing():
    """A column that several tables have is of one type and unit in all of them."""
    seen = {}
    for table in TABLES:
        for c in columns(table, PARAMETERS):
            assert seen.setdefault(c.name, (c.type, c.unit)) == (c.type, c.unit), (table, c.name)


def test_the_documented_pandas_lines_run(tmp_path, monkeypatch, capsys):
    store = RunStore.create(tmp_path / "runs" / "x", parameters=PARAMETERS, plan={})
    where = {"evaluation_seed": 1, "snr_db": 0.0, "num_sources": 1, "capped_error": 0.5}
    for number, name in enumerate(("t0", "t1")):
        store.write_trial(
            {
                "trial_id": name,
                "number": number,
                "outcome": "completed",
                "objective": 0.5 - 0.1 * number,
                "seconds": 1800.0,
                "params.eigengap.weight": 0.3,
            },
            epochs=[{"trial_id": name, "epoch": 1, "validation_capped_error": 0.5}],
            evaluations=[where | {"trial_id": name, "estimator": "network"}],
            scenes=[where | {"trial_id": name, "estimator": "network", "scene_id": 0}],
        )
    music = where | {"trial_id": None, "estimator": "lmmse_music", "capped_error": 0.75}
    store.write_part("evaluations", "baselines", [music])
    store.write_part("scenes", "baselines", [music | {"scene_id": 0}])
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", DOCS, flags=re.DOTALL)
    assert len(blocks) >= 7
    space = {}
    values = [run_block(block, space) for block in blocks]
    assert space["best"] == "t1"
    assert values[1]["params.eigengap.weight"].tolist() == [0.3, 0.3]
    assert values[3].loc[1, "t1"] == 0.5
    assert values[4].loc[0.0, (1, "lmmse_music")] == 0.75
    assert values[5].loc[0.0] == -0.25
    assert values[6].loc["completed", "seconds"] == 1.0
    assert "seconds s wall-clock time in training" in capsys.readouterr().out
    assert all(isinstance(v, pd.DataFrame | pd.Series) for v in values[1:7])


def run_block(block, space):
    """The value of a block's last line, if it is an expression, as a notebook shows it."""
    import ast

    tree = ast.parse(block)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "docs/results.md", "exec"), space)
    if last is None:
        return None
    return eval(compile(ast.Expression(last.value), "docs/results.md", "eval"), space)
