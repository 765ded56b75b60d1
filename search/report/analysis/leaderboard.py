"""The leaderboard: the bound, the classical methods, then the trials; and is the best one better?

Values are means over the run's objective SNRs and over K, on held-out scenes; the column
`objective` is what the search saw, on validation scenes, and is optimistic for the best of many;
`confirmed` is what fresh training seeds did on fresh scenes, null until `search.confirm` has run.
The interval of such a mean is the mean of the cells' interval ends: cells share their scenes, and
full correlation is the worst case, so it is never too short.
"""

from pathlib import Path

import pandas as pd

from search.plan import Outcome, Rungs, early_stopper
from search.records import JUDGED
from search.report.data import Run, as_run, once_per_run

from . import confirmed
from .estimators import BOUND, REFERENCE, ROW_ORDER
from .statistics import Interval, paired_difference

SUCCESS_SNR_DB = (-10.0, -5.0, 0.0)
ENDS = ("capped_error", "capped_error_low", "capped_error_high")
CONFIRMED = ("confirmed", "confirmed_low", "confirmed_high")
SCENE = ["evaluation_seed", "scene_id", "snr_db", "num_sources"]

_STANDING = {outcome: rank for rank, outcome in enumerate(Outcome)}


@once_per_run
def table(run: Run | str | Path) -> pd.DataFrame:
    """One row per baseline, then one per trial: completed ones by objective, then the others.

    Columns: name, trial_id (null for baselines), outcome (`bound`, `classical`, or the trial's),
    cause, best, epochs, seconds, objective, capped_error and confirmed with their interval ends,
    confirmed_seeds, rmspe_deg, one `success_<snr>_db` per SNR. What is not known is null.
    """
    run = as_run(run)
    scored = run.tables["evaluations"]
    shared = scored[scored["trial_id"].isna()]
    again = _confirmed(run)
    rows = [
        {
            "name": name,
            "trial_id": None,
            "outcome": "bound" if name == BOUND else "classical",
            "best": False,
            **_summarise(shared[shared["estimator"] == name], run.objective_snr_db),
            **again.get(name, {}),
        }
        for name in _in_order(
            set(shared["estimator"]) | (set(again) - set(run.trials["trial_id"]))
        )
    ]
    best = run.best
    own = dict(iter(scored[scored["estimator"] == "network"].groupby("trial_id")))
    for trial in _ranked(run.trials).to_dict("records"):
        rows.append(
            {
                "name": trial["trial_id"],
                "trial_id": trial["trial_id"],
                "outcome": trial["outcome"],
                "cause": trial["cause"],
                **{name: trial[name] for name in JUDGED},
                "epochs": trial["epochs"],
                "seconds": trial["seconds"],
                "best": trial["trial_id"] == best,
                **_summarise(own.get(trial["trial_id"], scored[:0]), run.objective_snr_db),
                **again.get(trial["trial_id"], {}),
            }
        )
    return pd.DataFrame(rows, columns=_columns())


def paired_with(run: Run | str | Path, reference: str = REFERENCE) -> Interval | str:
    """Capped error of the best trial minus that of `reference`, scene by scene, held out.

    The unit is the scene: its SNRs and source numbers share the channel and are averaged first.

    Returns:
        The difference, negative if the network is better; or a sentence that says why there is
        none.
    """
    run = as_run(run)
    best = run.best
    if best is None:
        return "No paired comparison: no trial completed."
    scenes = run.tables["scenes"]
    scenes = scenes[scenes["changes"].isna()]  # reruns are for `confirmed`
    scenes = scenes[scenes["snr_db"].isin(run.objective_snr_db)].dropna(subset=["capped_error"])
    network = scenes[(scenes["trial_id"] == best) & (scenes["estimator"] == "network")]
    classical = scenes[scenes["trial_id"].isna() & (scenes["estimator"] == reference)]
    for rows, whose in ((network, f"trial {best}"), (classical, reference)):
        if rows.empty:
            return (
                f"No paired comparison: `scenes` has no rows of {whose} at the objective's SNRs."
            )
    pairs = network.merge(classical, on=SCENE, suffixes=("", "_reference"))
    units = pairs["evaluation_seed"].astype(str) + "/" + pairs["scene_id"].astype(str)
    if units.nunique() < 2:
        return f"No paired comparison: trial {best} and {reference} share fewer than two scenes."
    return paired_difference(
        pairs["capped_error"], pairs["capped_error_reference"], units=units.to_numpy(dtype=str)
    )


def text(run: Run | str | Path, *, trials: int = 16) -> str:
    """The leaderboard for a console; never raises for a run that is broken or has nothing to
    show, but says so.

    Args:
        run: a loaded run, or its folder.
        trials: how many trials are shown one by one, completed ones first.
    """
    run = as_run(run)
    board = table(run)
    shared, own = board[board["trial_id"].isna()], board[board["trial_id"].notna()]
    completed = own[own["outcome"] == Outcome.COMPLETED]
    shown = pd.concat([shared, own.head(trials)])
    lines = [*_head(run), *(_line(shown.iloc[i]) for i in range(len(shown)))]
    if len(own) > trials:
        lines.append(f"and {len(own) - trials} more trials in `trials`")
    lines += _tally_lines(own)
    if shared.empty:
        lines.append("The classical methods have not been scored.")
    if own.empty:
        lines.append(run.empty("trials", "No trial has ended."))
    elif completed.empty:
        lines.append("No trial completed, so there is no best one.")
    difference = paired_with(run)
    lines.append(difference if isinstance(difference, str) else verdict_on_best(run, difference))
    return "\n".join([*lines, *no_effect(run), *run.notes])


def no_effect(run: Run) -> list[str]:
    """Which searched parameters theory says cannot matter, and where; they stay searchable."""
    claims = run.plan.get("no_effect")
    if not isinstance(claims, dict) or not claims:
        return []
    said = "; ".join(f"{name} {where}" for name, where in claims.items())
    return [f"Without effect by theory: {said}."]


def verdict_on_best(run: Run, difference: Interval) -> str:
    """One sentence on the best trial against the reference, with n and interval."""
    return (
        f"{run.best} {compares(difference)} {REFERENCE}: capped error {difference}, paired over "
        f"{difference.n} held-out scenes ({difference.level:.0%} t interval)."
    )


def compares(difference: Interval) -> str:
    """The verb for a difference of errors: beats, loses to, or neither."""
    if not difference.excludes_zero:
        return "is not shown to differ from"
    return "beats" if difference.mean < 0 else "loses to"


def tally(run: Run | str | Path) -> dict[str, int]:
    """How many trials ended how, in the order of `Outcome`; none of a kind is left out."""
    counts = as_run(run).trials["outcome"].value_counts()
    return {o.value: int(counts[o.value]) for o in Outcome if counts.get(o.value, 0)}


def _summarise(cells: pd.DataFrame, objective_snr_db: tuple[float, ...]) -> dict[str, float]:
    """Means over the objective's cells; nothing where one of its SNRs is missing, since means
    over different SNRs do not compare."""
    found: dict[str, float] = {}
    at = cells[cells["snr_db"].isin(objective_snr_db)]
    if set(at["snr_db"]) == set(objective_snr_db):
        for name in ENDS:
            if at[name].notna().all():
                found[name] = float(at[name].mean())
        if at["rmspe_deg"].notna().all():
            found["rmspe_deg"] = float((at["rmspe_deg"] ** 2).mean() ** 0.5)
    for snr in SUCCESS_SNR_DB:
        there = cells.loc[cells["snr_db"] == snr, "success_rate"]
        if len(there) and there.notna().all():
            found[success_column(snr)] = float(there.mean())
    return found


def _confirmed(run: Run) -> dict[str, dict[str, float]]:
    """Confirmed values by the name of a trial or method; empty until there are some."""
    rows = confirmed.table(run)
    known = rows[rows["confirmed"].notna()].rename(columns={"seeds": "confirmed_seeds"})
    kept = known.set_index("name")[[*CONFIRMED, "confirmed_seeds"]].to_dict("index")
    return {str(name): {str(k): v for k, v in row.items()} for name, row in kept.items()}


def _ranked(trials: pd.DataFrame) -> pd.DataFrame:
    """By outcome, then objective: fidelities are not mixed."""
    standing = trials["outcome"].map(lambda o: _STANDING.get(o, len(_STANDING)))
    return trials.assign(standing=standing).sort_values(["standing", "objective", "number"])


def _in_order(names: set[str]) -> list[str]:
    known = [name for name in ROW_ORDER if name in names]
    return known + sorted(names - set(known))


def success_column(snr_db: float) -> str:
    """Name of the column of success rates at that SNR."""
    return f"success_{snr_db:g}_db"


def _head(run: Run) -> list[str]:
    snr = ", ".join(f"{s:g}" for s in run.objective_snr_db)
    success = "success at " + " / ".join(f"{s:g}" for s in SUCCESS_SNR_DB) + " dB"
    about = f"{run.name}: means over SNR {snr} dB and all K on held-out scenes,"
    unit = "with capped error = mean(min(error, 10°)) / 10° and its 95 % interval"
    names = f"{'':20}{'capped error':>22}{success:>29}{'rmspe':>9}{'objective':>11}"
    return [about, unit, names]


def _line(row: pd.Series) -> str:
    value, low, high = (row[name] for name in ENDS)
    error = _number(value)
    if pd.notna(low) and pd.notna(high):
        error += f" [{low:.3f}, {high:.3f}]"
    success = " / ".join(_number(row[success_column(snr)], 2) for snr in SUCCESS_SNR_DB)
    rmspe = f"{row['rmspe_deg']:.2f}°" if pd.notna(row["rmspe_deg"]) else "-"
    word = f"{row['outcome']}, best" if row["best"] else row["outcome"]
    if row["outcome"] == Outcome.STOPPED:
        word += f" at epoch {row['epochs']:.0f}"
    elif pd.notna(row["cause"]):
        word += f": {row['cause']}"
    return (
        f"{row['name']:20}{error:>22}{success:>29}{rmspe:>9}{_number(row['objective']):>11}"
        f"  {word}"
    )


def _tally_lines(own: pd.DataFrame) -> list[str]:
    """One line for each outcome but `completed`, with its causes."""
    lines = []
    for outcome in [o for o in Outcome if o is not Outcome.COMPLETED]:
        rows = own[own["outcome"] == outcome]
        if rows.empty:
            continue
        causes = rows["cause"].dropna().value_counts()
        detail = ", ".join(f"{count} {cause}" for cause, count in causes.head(4).items())
        known = rows.dropna(subset=["objective"])
        if outcome is Outcome.STOPPED and len(known):
            first = known.iloc[0]
            detail = f"best objective {first['objective']:.3f} at epoch {first['epochs']:.0f}"
        lines.append(f"{len(rows)} {outcome}" + (f": {detail}" if detail else ""))
    return lines


def _number(value: float | None, digits: int = 3) -> str:
    return "-" if value is None or pd.isna(value) else f"{value:.{digits}f}"


def _columns() -> list[str]:
    head = ["name", "trial_id", "outcome", "cause", "best", *JUDGED, "epochs", "seconds"]
    scores = [*ENDS, *CONFIRMED, "confirmed_seeds", "rmspe_deg"]
    return [*head, *scores, *(success_column(snr) for snr in SUCCESS_SNR_DB)]


def rungs(run: Run, scheduler: str | None = None) -> list[int]:
    """Epochs at which the run's scheduler, or another, may stop a trial; none for rules without
    rungs."""
    search, fixed = run.plan.get("search"), run.plan.get("fixed")
    if not isinstance(search, dict) or not isinstance(fixed, dict):
        return []
    budget = fixed.get("epochs") or _longest(run)
    scheduler = scheduler or search.get("scheduler", "asha")
    if not budget or scheduler not in ("asha", "hyperband"):
        return []
    stopper = early_stopper(scheduler, int(budget))
    assert isinstance(stopper, Rungs), "asha and hyperband have rungs"
    return sorted({rung for bracket in stopper.brackets for rung in bracket})


def _longest(run: Run) -> int:
    epochs = run.trials.loc[run.trials["outcome"] == Outcome.COMPLETED, "epochs"].dropna()
    return int(epochs.max()) if len(epochs) else 0
