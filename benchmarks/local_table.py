"""Recorder of the table that `search_quality.py` replays: random `local` trainings.

    python benchmarks/search_quality.py --record 192

Every configuration is trained to its end in a plain loop, so every epoch, and with it every rung a
scheduler could have, is in the table; a replayed search looks its reports up there. A row is one
epoch of one configuration; what the sampler was asked is in columns of the sampler's own names,
null where the branch does not have them. One part per configuration is kept while recording, so
that a recording can be stopped at any moment and goes on where it was, and several processes can
record side by side.
"""

import fcntl
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from search.plan import SearchConfig
from search.suggest import new_study, sampler_for
from trainer.atomic import write_atomically
from trainer.failure import Diverged
from trainer.provenance import provenance
from trainer.training import train

PRESET = "local"
SEED = 6
"""Of the draws, and of all trainings."""

TABLE = Path(__file__).parent / "data" / f"{PRESET}.parquet"

ABOUT: dict[str, tuple[str, str]] = {
    "number": ("1", "place of the configuration in the draw"),
    "config_hash": ("1", "digest of the configuration"),
    "epoch": ("epochs", "epochs done, from 1; of a divergence, the epoch it happened in"),
    "cause": ("1", "why the training diverged in this epoch; null if it did not"),
    "capped_error": ("1", "validation error of this epoch; null where the training diverged"),
    "held_out_error": ("1", "the same on held-out scenes, after the last epoch only"),
    "seconds": ("s", "of this epoch on the clock, validation included"),
    "cpu_seconds": ("s", "of this epoch on the processor, one thread, validation included"),
}
"""Column -> unit and description; every other column is what the sampler drew."""


@dataclass(frozen=True)
class Training:
    """One configuration of the table.

    Attributes:
        number: its place.
        sampler: what the sampler drew.
        errors: validation error by epoch, as far as it trained.
        seconds: what each epoch cost, the one in which it diverged included; all epochs of a
            training do the same work, so each is given the least that one of them took.
        held_out: error on held-out scenes; None if it diverged.
    """

    number: int
    sampler: Mapping[str, Any]
    errors: tuple[float, ...]
    seconds: tuple[float, ...]
    held_out: float | None

    @property
    def diverged(self) -> bool:
        """True if the training ended in a number that is not finite."""
        return self.held_out is None


def record(count: int, parts: Path) -> None:
    """Train the first `count` configurations that have no part yet, and write the table."""
    torch.set_num_threads(1)
    parts.mkdir(parents=True, exist_ok=True)
    came = parts / "provenance"
    if not came.exists():
        write_atomically(
            came, json.dumps(provenance(seeds={"draws_and_trainings": SEED})).encode()
        )
    plan = SearchConfig(PRESET, count, "record", sampler="random", seed=SEED)
    study = new_study(plan)
    for number in range(count):
        study.sampler = sampler_for(plan, number)
        trial = study.ask()
        drawn = plan.space.suggest(trial)
        part = parts / f"{number:04d}.json"
        with open(part.with_suffix(".claim"), "w") as claim:
            if _free(claim) and not part.exists():
                rows = trained(plan, number, drawn, dict(trial.params))
                write_atomically(part, json.dumps(rows).encode())
                print(f"{number:4d}  {rows[-1]}", flush=True)
    rows = [row for part in sorted(parts.glob("*.json")) for row in json.loads(part.read_text())]
    write_table(rows, came.read_text())


def _free(claim: IO[str]) -> bool:
    """Claim a configuration; return False if another process works on it. The system gives a claim
    back with the process."""
    try:
        fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def trained(
    plan: SearchConfig, number: int, drawn: dict[str, Any], asked: dict[str, Any]
) -> list[dict[str, Any]]:
    """Return the rows of one configuration."""
    # as the preset has it, but held-out scores at the objective's SNRs only
    snrs = list(plan.template.evaluation.objective_snr_db)
    config = plan.train_config(drawn | {"evaluation.report_snr_db": snrs})
    about = {"number": number, "config_hash": plan.train_config(drawn).digest, **asked}
    rows: list[dict[str, Any]] = []
    reports = train(config)
    while len(rows) < config.epochs:
        began, processor = time.perf_counter(), time.process_time()
        row: dict[str, Any] = about | {"epoch": len(rows) + 1}
        rows.append(row)
        try:
            report = next(reports)
        except Diverged as diverged:
            row["cause"] = diverged.failure.cause.value
        else:
            row["capped_error"] = report.capped_error
            if report.evaluation:
                scores = [score.capped_error for score in report.evaluation]
                row["held_out_error"] = sum(scores) / len(scores)
        # the held-out scores of the last epoch are no part of it
        row["seconds"] = time.perf_counter() - began
        row["cpu_seconds"] = time.process_time() - processor
        if row.get("held_out_error") is not None:
            row["cpu_seconds"] *= report.seconds / row["seconds"]
            row["seconds"] = report.seconds
        if "cause" in row:
            break
    return rows


def write_table(rows: list[dict[str, Any]], came: str) -> None:
    """Write all rows as one Parquet file, with units in its fields and their origin in its
    metadata."""
    names = [*ABOUT, *sorted({name for row in rows for name in row} - set(ABOUT))]
    table = pa.table({name: [row.get(name) for row in rows] for name in names})
    drawn = ("1", "as the sampler drew it; null where the branch does not have it")
    fields = [
        field.with_metadata(
            dict(zip(("unit", "about"), ABOUT.get(field.name, drawn), strict=True))
        )
        for field in table.schema
    ]
    schema = pa.schema(fields, metadata={"provenance": came, "preset": PRESET})
    TABLE.parent.mkdir(exist_ok=True)
    sink = pa.BufferOutputStream()
    pq.write_table(table.cast(schema), sink, compression="zstd")
    write_atomically(TABLE, sink.getvalue().to_pybytes())
    print(f"{TABLE}: {len(rows)} epochs of {len({row['number'] for row in rows})} configurations")


def load(path: Path = TABLE) -> list[Training]:
    """Return the recorded trainings by number."""
    table = pq.read_table(path)
    drawn = [name for name in table.column_names if name not in ABOUT]
    rows: dict[int, list[dict[str, Any]]] = {}
    for row in table.to_pylist():
        rows.setdefault(row["number"], []).append(row)
    return [
        Training(
            number=number,
            sampler={name: own[0][name] for name in drawn if own[0][name] is not None},
            errors=tuple(row["capped_error"] for row in own if row["capped_error"] is not None),
            # processor time: what other programs took of the machine is hardly in it
            seconds=(min(row["cpu_seconds"] for row in own[:-1] or own),) * len(own),
            held_out=own[-1]["held_out_error"],
        )
        for number, own in sorted(rows.items())
    ]
