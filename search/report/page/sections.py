"""The sections of a run's page, from its tables."""

import shlex
from collections.abc import Mapping
from typing import Any

import pandas as pd

from search.plan import Outcome
from search.records import JUDGED
from search.report.analysis import (
    CONFIRMED,
    ENDS,
    SUCCESS_SNR_DB,
    Importance,
    ablation,
    compares,
    confirmed,
    health,
    paired_with,
    success_column,
    table,
    tally,
    verdict_on_best,
)
from search.report.data import PREFIX, Run, shown
from search.report.figures import LABELS, short_label

from .layout import Cell, Heading, Row, Section, Shown, Table, number, with_interval, words

MOST_ROWS = 200
"""Rows of a table on the page; all are in the Parquet tables."""


def state(run: Run) -> str:
    """How far the run is, in one sentence."""
    ended, planned = len(run.trials), _planned(run)
    counts = ", ".join(f"{count} {outcome}" for outcome, count in tally(run).items())
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
    """What a hurried reader reads."""
    difference = paired_with(run)
    says = difference if isinstance(difference, str) else verdict_on_best(run, difference)
    return [state(run), says, *_confirmed_lead(run)]


def _confirmed_lead(run: Run) -> list[str]:
    """The same of fresh seeds and scenes, where there are some; also what the winner loses to."""
    board = confirmed.table(run)
    trials = board.loc[board["kind"] == "trial", "name"]
    told = [
        f"{compares(found)} {LABELS[reference]} ({found})"
        for best in trials.head(1)
        for reference in confirmed.REFERENCES
        if (found := confirmed.against(run, best, reference)) is not None
    ]
    if not told:
        return []
    said = f"Confirmed on fresh training seeds and scenes, {trials.iloc[0]} {' and '.join(told)}: "
    return [said + "differences of capped errors, 95 % intervals."]


def leaderboard(run: Run) -> Section:
    """The bound, the classical methods, then the trials."""
    board = table(run)
    shared = board["trial_id"].isna()
    limited = pd.concat([board[shared], board[~shared].head(MOST_ROWS)])
    params = run.trials.set_index("trial_id")
    params = params[[c for c in params.columns if c.startswith(PREFIX)]]
    rows = tuple(_row(row) for _, row in limited.iterrows())
    snrs = ", ".join(f"{snr:g}" for snr in run.objective_snr_db)
    success = " / ".join(f"{snr:g}" for snr in SUCCESS_SNR_DB)
    headings = (
        Heading("", hint="the bound, a classical method, or a trial"),
        Heading("outcome"),
        Heading("search value", True, "validation error, one seed; the best owes to luck"),
        Heading("confirmed error", True, "fresh scenes, 95 % interval, × training seeds"),
        Heading("confirmed - search", True, "the winner's curse, where it is above 0"),
        Heading("held-out error", True, "capped error with its 95 % interval, one training seed"),
        Heading("RMSPE [°]", True),
        Heading(f"success at {success} dB", True),
        Heading("epochs", True),
        Heading("time [s]", True, "wall-clock time in training"),
    )
    note = (
        f"Capped error: mean(min(angle error, 10°)) / 10° over SNR {snrs} dB and all K; lower is "
        "better. The search value of the best of many owes to luck as well; compare the "
        "held-out one, and trust the confirmed one (`python -m search.confirm`). √CRB is a root "
        "mean square: the mean error of an estimator that reaches it is up to a fifth smaller."
    )
    hidden = int((~shared).sum()) - MOST_ROWS
    if hidden > 0:
        note += f" {hidden} more trials are in summary.parquet."
    text = []
    if not shared.any():
        text.append("The classical methods and the bound have not been scored.")
    if run.trials.empty:
        text.append(run.empty("trials", "No trial has ended."))
    elif run.best is None:
        text.append("No trial completed, so there is no best one.")
    tables = [Table("leaderboard-table", headings, rows, note=note)] if rows else []
    if len(limited) > shared.sum():
        tables.append(_parameters(limited[limited["trial_id"].notna()], params))
    return Section("leaderboard", "Leaderboard", text, tables)


def health_notes(run: Run, importance: Importance | str) -> Section:
    """What to mistrust, by check."""
    return Section("health", "Health notes", lists=list(health.notes(run, importance).items()))


def failures(run: Run) -> Section:
    """One row per failure, with the command that repeats it."""
    rows = run.tables["failures"]
    reruns = ablation.lost_trainings(run)
    if rows.empty:
        none = run.empty("failures", "No failure of a trial is on record.")
        return Section("failures", "Failures", [none, *reruns])
    headings = (
        Heading("trial"),
        Heading("outcome"),
        Heading("cause"),
        Heading("loss term"),
        Heading("tensor"),
        Heading("step", True),
        Heading("smallest eigengap", True),
        Heading("replay"),
    )
    listed = tuple(
        Row(
            (
                words(row["trial_id"]),
                words(row["outcome"]),
                words(row["cause"]),
                words(row["term"]),
                words(row["tensor"]),
                number(row["step"], 0),
                _scientific(row["min_eigengap"]),
                words(row["replay"], "code"),
            )
        )
        for row in rows.head(MOST_ROWS).to_dict("records")
    )
    listing = Table("failures-table", headings, listed)
    return Section("failures", "Failures", reruns, [listing])


def figures(pictures: list[tuple[Shown, ...]]) -> Section:
    """All figures, one or two in a row."""
    return Section("figures", "Figures", figures=pictures)


def _commit(provenance: Mapping[str, Any]) -> str:
    code = _mapping(provenance.get("code"))
    return (code.get("sha") or "") + (" (with changes)" if code.get("dirty") else "")


def plan(run: Run) -> Section:
    """What was asked for, by which code, on which machine."""
    provenance = _mapping(run.plan.get("provenance"))
    argv = provenance.get("argv")
    resumed = run.plan.get("resumed") or []
    facts = {
        "command": shlex.join(map(str, argv)) if isinstance(argv, list) else None,
        "started": provenance.get("time"),
        "commit": _commit(provenance),
        **{f"resumed {each.get('time')}": _commit(each) for each in map(_mapping, resumed)},
        **{f"version of {k}": v for k, v in _mapping(provenance.get("versions")).items()},
        **_mapping(run.plan.get("search")),
        **_mapping(run.plan.get("fixed")),
    }
    about = tuple(
        Row((words(name), words(_plain(value), "code")))
        for name, value in facts.items()
        if value not in (None, "", [])
    )
    space = tuple(
        Row((words(name), words(text, "code")))
        for name, text in _mapping(run.plan.get("space")).items()
    )
    tables = [
        Table("space", (Heading("parameter"), Heading("range or choices")), space, "Searched"),
        Table("plan-table", (Heading("setting"), Heading("value")), about, "Given"),
    ]
    told = [t for t in tables if t.rows]
    return Section("plan", "Plan and provenance", [] if told else ["run.json says nothing."], told)


def confirmations(run: Run) -> Section:
    """What the finalists did again, and whether what was ablated helps."""
    text = []
    board = confirmed.table(run)
    if (board["kind"] == "trial").any():
        curse = confirmed.curse(run)
        if curse is not None:
            text.append(
                f"Confirmed minus search value, the winner's curse: {curse}, over {curse.n} "
                "finalists (95 % t interval)."
            )
        best = str(board[board["kind"] == "trial"]["name"].iloc[0])
        for reference in confirmed.REFERENCES:
            if (found := confirmed.against(run, best, reference)) is not None:
                text.append(
                    f"{best} against {LABELS[reference]}: capped error {found}, paired over "
                    f"{found.n} fresh training seeds and common scenes."
                )
    else:
        text.append(confirmed.nothing(run))
    text += confirmed.elsewhere(run)
    tables = []
    for name in ablation.names(run):
        effects = ablation.effects(run, name)
        text.append(ablation.sentence(run, name, effects))
        if effects:
            tables.append(_effects(name, effects))
    if not ablation.names(run):
        yet = "Nothing is ablated yet: "
        says = "`python -m search.ablate RUN --term eigengap` says whether the term helps."
        text.append(run.empty("ablations", yet + says))
    return Section("confirmed", "Confirmed and ablated", text, tables)


def _effects(name: str, effects: "list[ablation.Effect]") -> Table:
    headings = (
        Heading("measure"),
        Heading("SNR [dB]", True, "empty: mean over the SNRs of the objective"),
        Heading("without", True),
        Heading("with", True),
        Heading("difference", True, "with its 95 % interval"),
        Heading("detectable", True, "smallest true difference told from 0 with 80 % probability"),
    )
    rows = []
    for effect in effects:
        ends = (effect.difference.mean, effect.difference.low, effect.difference.high)
        snr = Cell("objective", kind="number")
        if effect.snr_db is not None:
            snr = Cell(f"{effect.snr_db:g}", repr(effect.snr_db), "number")
        cells = (
            words(ablation.MEASURES[effect.measure]),
            snr,
            number(effect.without),
            number(effect.with_),
            with_interval(ends),
            number(effect.detectable),
        )
        rows.append(Row(cells))
    return Table(f"ablation-{name}", headings, tuple(rows), title=f"Ablation: {name}")


def _parameters(board: pd.DataFrame, params: pd.DataFrame) -> Table:
    headings = (Heading("trial"), Heading("search value", True), Heading("parameters"))
    rows = tuple(
        Row(
            (
                words(name),
                number(objective),
                words(_said(params.loc[name]), "prose"),
            ),
            "best" if best else "",
        )
        for name, objective, best in zip(
            board["trial_id"], board["objective"], board["best"], strict=True
        )
    )
    return Table("parameters-table", headings, rows, title="Parameters of the trials")


def _row(row: "pd.Series[Any]") -> Row:
    own = isinstance(row["trial_id"], str)
    outcome = row["outcome"]
    if (
        own
        and outcome not in (Outcome.COMPLETED, Outcome.STOPPED)
        and isinstance(row["cause"], str)
    ):
        outcome = f"{outcome}: {row['cause']}"
    rates = [row[success_column(snr)] for snr in SUCCESS_SNR_DB]
    success = Cell(
        " / ".join("–" if pd.isna(rate) else f"{rate:.2f}" for rate in rates),
        "" if pd.isna(rates[-1]) else repr(float(rates[-1])),
        "number",
    )
    seeds = row["confirmed_seeds"]
    more = "" if pd.isna(seeds) else f" ×{seeds:.0f}"
    name = row["name"] if own else short_label(row["name"])
    cells = (
        words(name),
        words(f"{outcome}, best" if row["best"] else outcome),
        with_interval([row[end] for end in JUDGED]),
        with_interval([row[end] for end in CONFIRMED], more=more),
        number(row[CONFIRMED[0]] - row["objective"]),
        with_interval([row[end] for end in ENDS]),
        number(row["rmspe_deg"], 1),
        success,
        number(row["epochs"], 0),
        number(row["seconds"], 0),
    )
    kind = "best" if row["best"] else "" if own else "shared"
    return Row(cells, kind)


def _said(values: "pd.Series[Any]") -> str:
    """Parameters in few words; the group's name is left out, where nothing else ends alike."""
    told = [(str(k).removeprefix(PREFIX), shown(v)) for k, v in values.items()]
    ends = [name.rpartition(".")[2] for name, _ in told]
    return ", ".join(
        f"{name if ends.count(end) > 1 else end} {value}"
        for (name, value), end in zip(told, ends, strict=True)
        if value
    )


def _planned(run: Run) -> int | None:
    trials = _mapping(run.plan.get("search")).get("trials")
    return int(trials) if isinstance(trials, int) else None


def _scientific(value: Any) -> Cell:
    return number(value) if pd.isna(value) else Cell(f"{value:.1e}", repr(float(value)), "number")


def _plain(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
