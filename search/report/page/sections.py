"""The sections of a run's page, from its tables."""

import shlex
from dataclasses import replace
from typing import Any

from search.report.analysis import (
    LABELS,
    ablation,
    compares,
    confirmed,
    confusion_table,
    guarded,
    leaderboard,
    short_label,
)
from search.report.data import PREFIX, Heading, Run, Table, TableRow, format_value, number, words
from search.report.factorial import map_tables, sentences

from .layout import Section

MOST_ROWS = 200
"""Rows of a table on the page; all are in the Parquet tables."""


def state(run: Run) -> str:
    """Return how far the run is, in one sentence."""
    ended, planned = len(run.trials), run.planned("search").get("trials")
    counts = ", ".join(f"{count} {outcome}" for outcome, count in leaderboard.tally(run).items())
    of = f" of {planned} planned" if planned else ""
    text = f"{ended}{of} trials have ended" + (f": {counts}." if counts else ".")
    if not ended:
        text = run.empty("trials", text)
    if run.notes:
        text += " Some of its files are missing or damaged: this report is of what is there."
    elif planned and ended < planned:
        text += (
            " The search is still running, or was interrupted: this report is of what is there."
        )
    return text


def lead(run: Run) -> list[str]:
    """Return the sentences for a hurried reader."""
    results = [
        f"{compares(found)} {LABELS[name]} ({found})"
        for name, found in confirmed.references(run).items()
    ]
    confirmation = [
        f"Confirmed on fresh training seeds and scenes, {best} {' and '.join(results)}: "
        "differences of capped errors, 95 % intervals."
        for best in confirmed.finalists(run)[:1]
        if results
    ]
    return [state(run), *leaderboard.verdicts(run), *confirmation]


def leaderboard_section(run: Run) -> Section:
    """Return the bound, the classical methods, then the trials and their parameters."""
    note = (
        f"Capped error: mean(min(angle error, 10°)) / 10° over SNR {run.objective_snrs} dB and "
        "all K; lower is better. The search value of the best of many owes to luck as well; "
        "compare the held-out one, and trust the confirmed one (`python -m search.confirm`). "
        "√CRB is a root mean square: the mean error of an estimator that reaches it is up to a "
        "fifth smaller. The limit is the least mean capped error of any estimator that knows the "
        "law of the scenes and K; √CRB says nothing at low SNR."
    )
    if run.own_trainer:
        note = (
            f"Search value: {run.own_objective_about}. "
            "That of the best of many owes to luck as well."
        )
    if (hidden := len(run.trials) - MOST_ROWS) > 0:
        note += f" {hidden} more trials are in summary.parquet."
    table = leaderboard.board_table(run, MOST_ROWS)
    rows = tuple(
        replace(row, cells=(words(short_label(row.cells[0].text)), *row.cells[1:]))
        for row in table.rows
    )
    tables = [replace(table, rows=rows, note=note)] if rows else []
    if len(run.trials):
        tables.append(_parameters(run))
    return Section("leaderboard", "Leaderboard", [*leaderboard.lacks(run), *guarded(run)], tables)


def _parameters(run: Run) -> Table:
    own = leaderboard.board(run).dropna(subset=["trial_id"]).head(MOST_ROWS)
    params = run.trials.set_index("trial_id").filter(regex=f"^{PREFIX}")
    columns = (Heading("trial"), Heading("search value", "number"), Heading("parameters", "prose"))
    rows = tuple(
        TableRow(
            (words(name), number(value), words(_short(params.loc[name]))), "best" if best else ""
        )
        for name, value, best in own[["name", "objective", "best"]].itertuples(index=False)
    )
    return Table("parameters-table", columns, rows, title="Parameters of the trials")


def _short(values: Any) -> str:
    """Return a trial's parameters on one line; `eigengap.weight` is `weight` where no other
    parameter ends in that."""
    known = {str(name).removeprefix(PREFIX): format_value(value) for name, value in values.items()}
    ends = [name.rpartition(".")[2] for name in known]
    return ", ".join(
        f"{name if ends.count(end) > 1 else end} {value}"
        for (name, value), end in zip(known.items(), ends, strict=True)
        if value
    )


def map_section(run: Run) -> Section:
    """Return what every term of a design does, by network and regime."""
    return Section("map", "Map", sentences(run), map_tables(run))


def source_numbers(run: Run) -> Section:
    """Return which K the methods say, of scenes with every true K."""
    table = confusion_table(run)
    none = [] if table else [run.empty("scenes", "No method was asked for K on held-out scenes.")]
    return Section("source-numbers", "Number of sources", none, [table] if table else [])


def confirmations(run: Run) -> Section:
    """Return what confirming and ablating found."""
    text = [] if confirmed.finalists(run) else [confirmed.why_no_finalist(run)]
    if (curse := confirmed.curse(run)) is not None:
        text.append(
            f"Confirmed minus search value, the winner's curse: {curse}, over {curse.n} "
            "finalists (95 % t interval)."
        )
    for name, found in confirmed.references(run).items():
        text.append(
            f"{confirmed.finalists(run)[0]} against {LABELS[name]}: capped error {found}, paired "
            f"over {found.n} fresh training seeds and common scenes."
        )
    names = ablation.names(run)
    text += [*confirmed.on_other_scenes(run), *(ablation.sentence(run, name) for name in names)]
    if not names:
        none = (
            "Nothing is ablated yet: `python -m search.ablate RUN --term eigengap` says whether "
            "the term helps."
        )
        text.append(run.empty("ablations", none))
    tables = [ablation.effects_table(run, name) for name in names if ablation.effects(run, name)]
    return Section("confirmed", "Confirmed and ablated", text, tables)


def failures(run: Run) -> Section:
    """Return one row per failure, with the command that repeats it."""
    failed, lost = run.tables["failures"], ablation.lost_trainings(run)
    if failed.empty:
        none = run.empty("failures", "No failure of a trial is on record.")
        return Section("failures", "Failures", [none, *lost])
    columns = (
        *map(Heading, ("trial", "outcome", "cause", "loss term", "tensor")),
        Heading("step", "number"),
        Heading("smallest eigengap", "number"),
        Heading("replay", "code"),
    )
    rows = []
    for row in failed.head(MOST_ROWS).to_dict("records"):
        texts = [words(row[name]) for name in ("trial_id", "outcome", "cause", "term", "tensor")]
        gap = number(row["min_eigengap"])
        gap = replace(gap, text=f"{float(gap.key):.1e}") if gap.key else gap
        rows.append(TableRow((*texts, number(row["step"], 0), gap, words(row["replay"]))))
    table = Table("failures-table", columns, tuple(rows))
    if run.own_trainer:
        table = table.only({column.title for column in columns} - {"smallest eigengap"})
    return Section("failures", "Failures", lost, [table])


def plan(run: Run) -> Section:
    """Return the plan, the code that ran it, and its versions."""
    provenance = run.planned("provenance")
    argv = provenance.get("argv")
    facts = {
        "command": shlex.join(map(str, argv)) if isinstance(argv, list) else None,
        "started": provenance.get("time"),
        "commit": _commit(provenance),
        **{f"resumed {each.get('time')}": _commit(each) for each in run.plan.get("resumed") or []},
        **{f"version of {k}": v for k, v in (provenance.get("versions") or {}).items()},
        **run.planned("search"),
        **run.planned("fixed"),
    }
    given = {name: plain(value) for name, value in facts.items() if value not in (None, "", [])}
    tables = [
        Table(
            name,
            (Heading(left), Heading(right, "code")),
            tuple(TableRow((words(key), words(value))) for key, value in rows.items()),
            title,
        )
        for name, left, right, rows, title in (
            ("space", "parameter", "range or choices", run.planned("space"), "Searched"),
            ("plan-table", "setting", "value", given, "Given"),
        )
        if rows
    ]
    text = [] if tables else ["run.json says nothing."]
    return Section("plan", "Plan and provenance", text, tables)


def _commit(provenance: dict[str, Any]) -> str:
    code = provenance.get("code") or {}
    return (code.get("sha") or "") + (" (with changes)" if code.get("dirty") else "")


def plain(value: Any) -> str:
    """Return a setting's value as a reader types it; empty where there is none."""
    if value is None:
        return ""
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
