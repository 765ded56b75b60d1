"""`summary.parquet`: the leaderboard with every trial's parameters, one row each, one file.

To join many runs: `pd.concat(pd.read_parquet(p) for p in Path("runs").glob(...))`. Unit
and description of every column are in the file's schema, as in the run's own tables.
"""

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from search.records import OBJECTIVE_INTERVAL, TRIALS, TYPES, Column, with_interval
from search.report.data import PREFIX, Run
from trainer.atomic import write_atomically

from .leaderboard import SUCCESS_SNR_DB, board, success_column

FILE = "summary.parquet"
SUMMARY_TYPES = TYPES | {"bool": pa.bool_()}
_OF_TRIALS = {c.name: c for c in TRIALS}

COLUMNS = (
    Column("run", "str", "", "name of the run's folder"),
    Column("name", "str", "", "trial_id, or the name of an estimator, of a limit, or crb"),
    Column("trial_id", "str", "", "trial the row belongs to; null for estimators"),
    Column("outcome", "str", "", "bound, classical, refined, or what became of the trial"),
    _OF_TRIALS["cause"],
    Column("best", "bool", "", "whether it is the run's best trial"),
    *(_OF_TRIALS[name] for name in (*OBJECTIVE_INTERVAL, "guard_above")),
    _OF_TRIALS["epochs"],
    _OF_TRIALS["seconds"],
    *with_interval("capped_error", "on held-out scenes, mean over objective SNRs and K"),
    *with_interval("confirmed", "the same over fresh training seeds, on fresh scenes"),
    Column("confirmed_seeds", "int", "1", "training seeds behind it; null for baselines"),
    Column("rmspe_deg", "float", "deg", "root mean square error over objective SNRs and K"),
    *(
        Column(success_column(snr), "float", "1", f"success rate at {snr:g} dB, mean over K")
        for snr in SUCCESS_SNR_DB
    ),
)


def frame(run: Run) -> pd.DataFrame:
    """Return the leaderboard with `run` in front and `params.*` behind."""
    params = [c for c in run.trials.columns if c.startswith(PREFIX)]
    joined = board(run).merge(run.trials[["trial_id", *params]], on="trial_id", how="left")
    joined.insert(0, "run", run.name)
    return joined[[*(c.name for c in COLUMNS), *params]]


def write(run: Run, folder: Path) -> Path:
    """Write `summary.parquet` atomically."""
    rows = frame(run)
    described = {c.name: (c.type, c.unit, c.about) for c in COLUMNS}
    described |= {PREFIX + name: about for name, about in run.planned("parameters").items()}
    fields = []
    for name in rows.columns:
        kind, unit, about = described.get(name, ("", "", ""))
        dtype = SUMMARY_TYPES[kind] if kind else pa.Array.from_pandas(rows[name]).type
        fields.append(pa.field(name, dtype, metadata={"unit": unit, "description": about}))
    sink = pa.BufferOutputStream()
    table = pa.Table.from_pandas(rows, schema=pa.schema(fields), preserve_index=False)
    pq.write_table(table, sink)
    path = folder / FILE
    write_atomically(path, sink.getvalue().to_pybytes())
    return path
