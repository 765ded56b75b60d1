"""The leaderboard: the bound, the classical methods, then the trials; and is the best one better?

Values are means over the run's objective SNRs and over K, on held-out scenes. The column
`objective` is the value that the search saw, on validation scenes: that of the best of many trials
is optimistic. `confirmed` is the value on fresh training seeds and scenes, null until
`search.confirm` has run. Intervals are bootstraps over scenes, which all SNRs and K share. Of
trials without errors per scene, all but the best, they are the means of the interval ends of their
cells: full correlation is the worst case, so they are never too short.
"""

from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from search.plan import Outcome, Rungs, early_stopper
from search.records import OBJECTIVE_INTERVAL, best_trials
from search.report.data import (
    PREFIX,
    WEIGHT,
    Cell,
    Heading,
    Run,
    Table,
    TableRow,
    interval,
    number,
    words,
)
from trainer.config import REFERENCE, REFINED_NAMES, ConfigError, TrainConfig
from trainer.intervals import mean_errors
from trainer.limits import how_to_know

from . import confirmed
from .confirmed import CONFIRMED
from .estimators import BOUNDS, LIMIT, in_order
from .guard import guarded
from .statistics import Interval, mean_interval

SUCCESS_SNR_DB = (-10.0, -5.0, 0.0)
ENDS = ("capped_error", "capped_error_low", "capped_error_high")
SCENE = ["evaluation_seed", "scene_id", "snr_db", "num_sources"]
KIND = f"{PREFIX}network.kind"
SAME = 1e-3
"""Difference up to which a mean over scenes is that of the cells, rounded or scored again."""
LAW = ("scene.", "evaluation.test_seed")
"""Settings that decide what the limit is of."""
WELL = (Outcome.COMPLETED, Outcome.STOPPED)
"""Outcomes of trials that did not fail."""

OWN_COLUMNS = ("", "outcome", "search value", "epochs", "time [s]")
"""Columns of a leaderboard of trials that score no scenes."""

_OF_TRIAL = (
    "trial_id",
    "outcome",
    "cause",
    *OBJECTIVE_INTERVAL,
    "guard_above",
    "epochs",
    "seconds",
)
_STANDING = {outcome: rank for rank, outcome in enumerate(Outcome)}


def success_column(snr_db: float) -> str:
    """Return the name of the column of success rates at that SNR."""
    return f"success_{snr_db:g}_db"


@lru_cache(maxsize=8)
def board(run: Run) -> pd.DataFrame:
    """Return one row per baseline, one of the best trial's refined estimates, then one per trial:
    completed ones as ranked, then others.

    Columns: name, trial_id (null unless a trial's), outcome (`bound`, `classical`, `refined`, or
    the trial's), cause, best, guard_above, epochs, seconds, objective, capped_error and confirmed
    with their interval ends, confirmed_seeds, rmspe_deg, one `success_<snr>_db` per SNR. What is
    not known is null.
    """
    scored = run.tables["evaluations"]
    shared = scored[scored["trial_id"].isna()]
    again = confirmed.confirmed_values(run).dropna(subset=["confirmed"])
    rows: list[dict[str, Any]] = [
        {
            "name": name,
            "outcome": "bound" if name in BOUNDS else "classical",
            "best": False,
            **_summary(run, name, shared[shared["estimator"] == name]),
        }
        for name in in_order({*shared["estimator"], *again.loc[again["kind"] != "trial", "name"]})
    ]
    mine = scored[scored["trial_id"] == run.best]
    rows += [
        {"name": name, "outcome": "refined", "best": False, **_summary(run, str(name), cells)}
        for name, cells in mine.groupby("estimator")
        if name in REFINED_NAMES
    ]
    own = dict(iter(scored[scored["estimator"] == "network"].groupby("trial_id")))
    # by outcome before objective: values of different fidelities do not compare
    standing = run.trials["outcome"].map(lambda o: _STANDING.get(o, len(_STANDING)))
    ranked = run.trials.assign(standing=standing, guarded=run.trials["guard_above"] > 0)
    by = ["standing", "guarded", "objective", "number"]
    for trial in ranked.sort_values(by).to_dict("records"):
        name = trial["trial_id"]
        about = {"name": name, "best": name == run.best, **{k: trial[k] for k in _OF_TRIAL}}
        rows.append(about | _summary(run, name, own.get(name, scored[:0])))
    scores = [*ENDS, "rmspe_deg", *map(success_column, SUCCESS_SNR_DB)]
    found = pd.DataFrame(rows, columns=["name", "best", *_OF_TRIAL, *scores])
    seeds = again.rename(columns={"seeds": "confirmed_seeds"})
    return found.merge(seeds[["name", *CONFIRMED, "confirmed_seeds"]], on="name", how="left")


def _summary(run: Run, name: str, cells: pd.DataFrame) -> dict[str, float]:
    """Return means over the objective's cells of an estimator, or of a trial's network; none where
    one of its SNRs is missing, since means over different SNRs do not compare."""
    objective_snr_db = run.objective_snr_db
    rates = {snr: cells.loc[cells["snr_db"] == snr, "success_rate"] for snr in SUCCESS_SNR_DB}
    found = {success_column(snr): rate.mean(skipna=False) for snr, rate in rates.items()}
    at = cells[cells["snr_db"].isin(objective_snr_db)]
    if set(at["snr_db"]) == set(objective_snr_db):
        found |= {str(name): mean for name, mean in at[[*ENDS]].mean(skipna=False).items()}
        scenes = held_out(run, name if name != run.best else "network")
        scenes = scenes[scenes["evaluation_seed"].isin(at["evaluation_seed"])]
        if 0 < len(scenes) == at["num_scenes"].sum():
            (errors,) = mean_errors(scenes.to_dict("records"), objective_snr_db).values()
            if abs(errors.mean - found[ENDS[0]]) < SAME:
                found |= dict(zip(ENDS, (errors.mean, errors.low, errors.high), strict=True))
        found["rmspe_deg"] = (at["rmspe_deg"] ** 2).mean(skipna=False) ** 0.5
    return found


def board_table(run: Run, trials: int) -> Table:
    """Return the leaderboard as a table, with the first so many trials."""
    rows = board(run)
    own = rows["trial_id"].notna()
    success = " / ".join(f"{snr:g}" for snr in SUCCESS_SNR_DB)
    columns = (
        Heading("", hint="the bound, a classical method, or a trial"),
        Heading("outcome"),
        Heading("search value", "number", "validation error, one seed; the best owes to luck"),
        Heading("confirmed error", "number", "fresh scenes, 95 % interval, × training seeds"),
        Heading("confirmed - search", "number", "the winner's curse, where it is above 0"),
        Heading("held-out error", "number", "capped error, 95 % interval, one training seed"),
        Heading("RMSPE [°]", "number"),
        Heading(f"success at {success} dB", "number"),
        Heading("epochs", "number"),
        Heading("time [s]", "number", "wall-clock time in training"),
    )
    shown = pd.concat([rows[~own], rows[own].head(trials)])
    if run.own_trainer and run.own_objective[1] < 0:  # as its trainer reports it
        value, low, high = (-shown[end] for end in OBJECTIVE_INTERVAL)
        shown = shown.assign(objective=value, objective_low=high, objective_high=low)
    table = Table("leaderboard-table", columns, tuple(_row(row) for _, row in shown.iterrows()))
    return table.only(OWN_COLUMNS) if run.own_trainer else table


def _row(row: "pd.Series[Any]") -> TableRow:
    rates = [number(row[success_column(snr)], 2) for snr in SUCCESS_SNR_DB]
    seeds = row["confirmed_seeds"]
    outcome = f"{row['outcome']}, guarded" if row["guard_above"] > 0 else row["outcome"]
    outcome += ", best" if row["best"] else ""
    if outcome == Outcome.STOPPED:
        outcome += f" at epoch {row['epochs']:.0f}"
    elif pd.notna(row["cause"]):
        outcome += f": {row['cause']}"
    cells = (
        words(row["name"]),
        words(outcome),
        interval([row[end] for end in OBJECTIVE_INTERVAL]),
        interval([row[end] for end in CONFIRMED], "" if pd.isna(seeds) else f" ×{seeds:.0f}"),
        number(row["confirmed"] - row["objective"], sign="+"),
        interval([row[end] for end in ENDS]),
        number(row["rmspe_deg"], 2),
        Cell(" / ".join(rate.text for rate in rates), rates[-1].key),
        number(row["epochs"], 0),
        number(row["seconds"], 0),
    )
    return TableRow(cells, "best" if row["best"] else "shared" if pd.isna(row["trial_id"]) else "")


def text(run: Run, *, trials: int = 16) -> str:
    """Return the leaderboard with so many trials for a console; it says so if a run is broken or
    has nothing to show."""
    table = board_table(run, trials)
    if run.own_trainer:
        about = [f"{run.name}: {run.own_objective_about}"]
        titles = {title: title for title in OWN_COLUMNS} | {"search value": run.own_objective[0]}
    else:
        about = [
            f"{run.name}: means over SNR {run.objective_snrs} dB and all K on held-out scenes,",
            "with capped error = mean(min(error, 10°)) / 10° and its 95 % interval",
        ]
        success = table.columns[7].title
        titles = {"": "", "held-out error": "capped error", success: success}
        titles |= {"RMSPE [°]": "rmspe", "search value": "objective", "outcome": ""}
    lines = [*about, table.text(titles, bare=("search value",))]
    if (more := len(run.trials) - trials) > 0:
        lines.append(f"and {more} more trials in `trials`")
    lines += [*_tally_lines(run), *lacks(run), *guarded(run)]
    lines += verdicts(run)
    if nothing := run.planned("no_effect"):
        named = "; ".join(f"{name} {where}" for name, where in nothing.items())
        lines.append(f"Without effect by theory: {named}.")
    return "\n".join([*lines, *run.notes])


def verdicts(run: Run) -> list[str]:
    """Return how the best trial compares, where trials score scenes."""
    if run.own_trainer:
        return []
    return [verdict_on_best(run), distance_to_limit(run), *with_and_without_term(run)]


def lacks(run: Run) -> list[str]:
    """Return a sentence for each part of a leaderboard that is not there."""
    found = []
    if not run.own_trainer and not board(run)["outcome"].isin(("bound", "classical")).any():
        found.append("The classical methods and the bound have not been scored.")
    if run.trials.empty:
        found.append(run.empty("trials", "No trial has ended."))
    elif run.best is None:
        found.append("No trial completed, so there is no best one.")
    return found


def tally(run: Run) -> dict[str, int]:
    """Return the number of trials by outcome, in the order of `Outcome`, without zeros."""
    counts = run.trials["outcome"].value_counts()
    return {o.value: int(counts[o.value]) for o in Outcome if counts.get(o.value, 0)}


def _tally_lines(run: Run) -> list[str]:
    """Return one line for each outcome but `completed`, with its causes."""
    lines = []
    for outcome, count in tally(run).items():
        if outcome == Outcome.COMPLETED:
            continue
        rows = run.trials[run.trials["outcome"] == outcome]
        causes = rows["cause"].value_counts()
        detail = ", ".join(f"{count} {cause}" for cause, count in causes.head(4).items())
        if outcome == Outcome.STOPPED and rows["objective"].notna().any():
            best = rows.sort_values(["objective", "number"]).iloc[0]
            sign = run.own_objective[1] if run.own_trainer else 1.0
            value = sign * best["objective"]
            detail = f"best objective {value:.3f} at epoch {best['epochs']:.0f}"
        lines.append(f"{count} {outcome}" + (f": {detail}" if detail else ""))
    return lines


# ---------------------------------------------------------------- paired by scene


def held_out(run: Run, estimator: str) -> pd.DataFrame:
    """Return scores by scene at the objective's SNRs, without reruns: of the best trial
    (`network`, or one of `REFINED_NAMES`), or of a classical method."""
    rows = run.tables["scenes"]
    mine = estimator in ("network", *REFINED_NAMES)
    own = rows["trial_id"] == run.best if mine else rows["trial_id"].isna()
    own &= (rows["estimator"] == estimator) & rows["changes"].isna()
    return rows[own & rows["snr_db"].isin(run.objective_snr_db)].dropna(subset=["capped_error"])


def paired_by_scene(one: pd.DataFrame, other: pd.DataFrame) -> Interval | None:
    """Return the mean difference of capped errors; None for fewer than two common scenes.

    The unit is the scene: its SNRs and source numbers share the channel and are averaged first.
    """
    pairs = one.merge(other, on=SCENE, suffixes=("", "_other"))
    difference = pairs["capped_error"] - pairs["capped_error_other"]
    by_scene = difference.groupby([pairs["evaluation_seed"], pairs["scene_id"]]).mean()
    return mean_interval(by_scene) if len(by_scene) > 1 else None


def paired_with(
    run: Run, reference: str = REFERENCE, estimator: str = "network"
) -> Interval | str:
    """Return the capped error of the best trial minus that of `reference`, paired by scene; or a
    sentence that says why there is no such difference."""
    if run.best is None:
        return "No paired comparison: no trial completed."
    network, classical = held_out(run, estimator), held_out(run, reference)
    for rows, whose in ((network, f"trial {run.best}"), (classical, reference)):
        if rows.empty:
            return (
                f"No paired comparison: `scenes` has no rows of {whose} at the objective's SNRs."
            )
    few = f"No paired comparison: trial {run.best} and {reference} share fewer than two scenes."
    return paired_by_scene(network, classical) or few


def verdict_on_best(run: Run) -> str:
    """Return a sentence on the best trial against the reference, with n and interval."""
    found = paired_with(run)
    if isinstance(found, str):
        return found
    return (
        f"{run.best} {compares(found)} {REFERENCE}: capped error {found}, paired over "
        f"{found.n} held-out scenes ({found.level:.0%} t interval)."
    )


def distance_to_limit(run: Run) -> str:
    """Return a sentence on how far the best trial is above the least error of any estimator."""
    if run.best is not None and held_out(run, LIMIT).empty:
        if not (fixed := run.planned("fixed")):
            return "The limit of these scenes is not known, as the run's plan is not."
        try:
            law = {name: value for name, value in fixed.items() if name.startswith(LAW)}
            return how_to_know(TrainConfig.from_params(law))
        except ConfigError as error:
            return f"The limit of these scenes is not known: {error}"
    found = paired_with(run, LIMIT)
    if isinstance(found, str):
        return found
    differences = {name: paired_with(run, LIMIT, name) for name in REFINED_NAMES}
    refined = [
        f" (refined as `localise` does: {one})"
        for one in differences.values()
        if not isinstance(one, str)
    ]
    snrs = ", ".join(f"{snr:g}" for snr in sorted({*held_out(run, LIMIT)["snr_db"]}))
    return (
        f"{run.best} is {found} above the limit{''.join(refined)}, the least capped error of any "
        f"estimator that knows the law of scenes: mean at {snrs} dB, {found.n} held-out scenes "
        "paired."
    )


def with_and_without_term(run: Run) -> list[str]:
    """Return sentences on the best completed trial with an eigengap term and the best without,
    paired by validation scene; none where the space does not search the term."""
    if f"{PREFIX}{WEIGHT}" not in run.trials or run.completed.empty:
        return []
    trials = run.trials.set_index("trial_id")
    arms: dict[str, list[str]] = {"with": [], "without": []}
    for name in best_trials(run.trials):
        arms["with" if trials[f"{PREFIX}{WEIGHT}"][name] > 0 else "without"].append(name)
    if lacking := [arm for arm, names in arms.items() if not names]:
        return [f"No trial {lacking[0]} an eigengap term completed, so its effect is not seen."]
    pair = [names[0] for names in arms.values()]
    one, other = pair
    known = run.tables["epochs"].sort_values("epoch").set_index("trial_id")["objective_scenes"]
    errors = [known[known.index == name].iloc[-1:].dropna().tolist() for name in pair]
    if not all(errors) or len({len(scenes) for (scenes,) in errors}) > 1:
        return [f"{one} and {other} do not compare: `epochs` lacks errors on the same scenes."]
    found = mean_interval(np.subtract(*(scenes for (scenes,) in errors)))
    kinds = [trials[KIND][name] for name in pair] if KIND in trials else []
    apart = f"They are networks of different kinds, {' and '.join(kinds)}."
    counts = " and of ".join(str(len(names)) for names in arms.values())
    said = (
        f"{one} is best with an eigengap term, {other} without: objective {found}, "
        f"{found.n} validation scenes paired."
    )
    caution = (
        f"One training each, the best of {counts}; {found.level:.0%} over scenes alone: "
        "`search.ablate RUN --term eigengap` says more."
    )
    return [said, *([apart] if len({*kinds}) > 1 else []), caution]


def compares(difference: Interval) -> str:
    """Return the verb for a difference of errors: beats, loses to, or neither."""
    if not difference.excludes_zero:
        return "is not shown to differ from"
    return "beats" if difference.mean < 0 else "loses to"


# ---------------------------------------------------------------- rungs


def rungs(run: Run, scheduler: str | None = None) -> list[int]:
    """Return the epochs at which the run's scheduler, or another, may stop a trial; none for
    schedulers without rungs."""
    search, fixed = run.planned("search"), run.planned("fixed")
    budget = fixed.get("epochs") or run.completed["epochs"].max()
    scheduler = scheduler or search.get("scheduler", "asha")
    if not search or pd.isna(budget) or scheduler not in ("asha", "hyperband"):
        return []
    stopper = early_stopper(scheduler, int(budget))
    assert isinstance(stopper, Rungs), "asha and hyperband have rungs"
    return sorted({rung for bracket in stopper.brackets for rung in bracket})
