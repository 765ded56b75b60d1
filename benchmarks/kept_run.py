"""A run of a design in one small file, from which its tables are printed and it goes on.

`pack` keeps the plan, every configuration, and the rows of `TABLES`; no weights. A training that
completed but has no scores yet needs its weights to get them: its rows are left out, so that it is
trained again. `unpack` makes a folder in which all others are found as they were.
"""

import io
import json
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from search.plan import Outcome
from search.records import RunStore, read_json, to_json
from trainer.record import ENDINGS

TABLES = ("trials", "epochs", "failures", "ablations", "scenes")
SESSION = "session-0001"
"""The part of trials and their epochs and failures."""
FILES = ("design.toml", "code/*")
"""Further files of a run, as patterns."""


def pack(run: Path) -> bytes:
    """Return a run as a ZIP file; another process may be writing it."""
    store = RunStore.open(run)
    trials = store.read_arrow("trials")  # first: what has ended by now has all its other rows
    tables = {name: store.read_arrow(name) for name in TABLES if name != "trials"}
    scored = pc.is_in(trials["trial_id"], value_set=tables["scenes"]["trial_id"].combine_chunks())
    trials = trials.filter(pc.or_(scored, pc.not_equal(trials["outcome"], Outcome.COMPLETED)))
    kept = trials["trial_id"].combine_chunks()
    content = {
        "run.json": (run / "run.json").read_bytes(),
        "configs.json": to_json({name: store.read_config(name) for name in store.started()}),
        "endings.json": to_json(_endings(run, set(kept.to_pylist()))),
    }
    content |= {
        str(file.relative_to(run)): file.read_bytes()
        for pattern in FILES
        for file in sorted(run.glob(pattern))
    }
    for name, rows in tables.items():
        own = rows.filter(pc.is_in(rows["trial_id"], value_set=kept))
        content[f"{name}.parquet"] = _parquet(own)
    content["trials.parquet"] = _parquet(trials)
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, data in content.items():
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED, 9)
    return sink.getvalue()


def unpack(file: Path, out: Path) -> Path:
    """Make the run of a packed one below `out`, under the name that it had; return its folder.

    Raises:
        RunExists: if there is a run of that name; it is left as it is.
    """
    with zipfile.ZipFile(file) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    plan = json.loads(content.pop("run.json"))
    configs, endings = (json.loads(content.pop(f"{n}.json")) for n in ("configs", "endings"))
    tables = {n: pq.read_table(io.BytesIO(content.pop(f"{n}.parquet"))) for n in TABLES}
    parameters, _, metrics = (plan.pop(n, {}) for n in ("parameters", "format", "metrics"))
    name = plan["search"]["name"]
    run = out / name
    RunStore.create(run, parameters=parameters, plan=plan, files=content)
    store = RunStore.open(run)
    store.add_metrics(metrics)
    for trial, config in configs.items():
        store.write_config(trial, config)
    store.write_endings(SESSION, endings)
    tables = {n: rows.cast(store.read_arrow(n).schema) for n, rows in tables.items()}
    scenes = tables.pop("scenes")
    for trial in pc.unique(scenes["trial_id"]).to_pylist():
        store.write_part("scenes", trial, scenes.filter(pc.equal(scenes["trial_id"], trial)))
    store.write_part("ablations", name, tables.pop("ablations"))
    trials = tables.pop("trials")
    for table, rows in tables.items():
        store.write_part(table, SESSION, rows)
    store.write_part("trials", SESSION, trials)  # last: what has ended has all its rows
    return run


def _endings(run: Path, kept: set[str]) -> dict[str, object]:
    """Return how the trials `kept` have ended."""
    parts = [read_json(file) for file in sorted(run.glob(f"{ENDINGS}/*.json"))]
    return {name: own for part in parts for name, own in part.items() if name in kept}


def _parquet(table: pa.Table) -> bytes:
    """Return a table as a compressed file; a column of doubles that are single precision numbers
    (scores are computed in it) is kept as such."""
    for i, field in enumerate(table.schema):
        if field.type == pa.float64():
            narrow = table[i].cast(pa.float32(), safe=False)
            if narrow.cast(pa.float64()).equals(table[i]):
                table = table.set_column(i, field.with_type(pa.float32()), narrow)
    floats = [field.name for field in table.schema if pa.types.is_floating(field.type)]
    others = [field.name for field in table.schema if field.name not in floats]
    sink = io.BytesIO()
    pq.write_table(
        table,
        sink,
        compression="zstd",
        compression_level=19,
        use_dictionary=others,
        use_byte_stream_split=floats,
    )
    return sink.getvalue()
