"""Is the winner one? How steady the best trial was, where else it holds, what noise decides."""

import pandas as pd
from scipy import stats

from search.plan import Outcome, objective_window
from search.report.data import Run

from . import confirmed
from .estimators import REFERENCE
from .leaderboard import ENDS, paired_with, table

LEVEL = 0.05
"""Chance that a winner like the other finalists is said to scatter more."""

LEAST_EPOCHS = 4
"""Epochs without which steadiness means nothing."""


def winner(run: Run) -> list[str]:
    """Whether the best trial was steady, stays good on other scenes, and at other SNRs."""
    best = run.best
    if best is None:
        return ["No trial completed, so there is no winner to examine."]
    found = [
        *_unsteady(run, best),
        *_curse(run, best),
        *_seeds(run, best),
        *_elsewhere(run, best),
    ]
    return found or [f"Nothing unusual about {best}."]


def noise(run: Run) -> list[str]:
    """Whether differences on the leaderboard are larger than what scoring them is uncertain by."""
    board = table(run)
    own = board[board["outcome"] == Outcome.COMPLETED].dropna(subset=list(ENDS))
    found = []
    ordered = _ordered(run)
    if len(own) >= 2:
        best = own.iloc[0]
        half = float(best["capped_error_high"] - best["capped_error_low"]) / 2
        close = own[(own["capped_error"] - best["capped_error"]).abs() <= half]["name"].tolist()[
            1:
        ]
        if close:
            found.append(
                f"Held-out errors are known to ±{half:.3f}; within that of {best['name']} lie "
                f"{', '.join(close[:6])}"
                + (f" and {len(close) - 6} more" if len(close) > 6 else "")
                + "."
                + (
                    ""
                    if ordered
                    else " Only fresh seeds and scenes, in pairs, can order them: "
                    "`python -m search.confirm`."
                )
            )
        else:
            found.append(
                f"Held-out errors are known to ±{half:.3f}, and no other completed trial is that "
                f"close to {best['name']}."
            )
    found += ordered
    difference = paired_with(run)
    if isinstance(difference, str):
        found.append(difference)
    elif not difference.excludes_zero:
        found.append(
            f"The best trial is not shown to differ from classical MUSIC: {difference}, paired "
            f"over {difference.n} scenes."
        )
    return found


def _ordered(run: Run) -> list[str]:
    """What confirming has told apart."""
    behind = confirmed.ahead(run)
    if not behind:
        return []
    best = confirmed.table(run).query("kind == 'trial'")["name"].iloc[0]
    apart = [name for name, more in behind.items() if more.low > 0]
    close = [f"{name} ({more})" for name, more in behind.items() if more.low <= 0]
    told = [f"is ahead of {', '.join(apart)}"] if apart else []
    told += [f"is not told from {', '.join(close)}"] if close else []
    said = (
        f"On fresh seeds and scenes {best} {' and '.join(told)}: capped error, paired by scene, "
    )
    return [said + "95 % over all pairs of finalists together."]


def _unsteady(run: Run, best: str) -> list[str]:
    """Whether its last epochs scatter by more than it won by, or it was better before."""
    epochs = run.tables["epochs"]
    own = epochs[epochs["trial_id"] == best].sort_values("epoch")
    errors = own["validation_capped_error"].dropna()
    found = []
    if len(errors) >= LEAST_EPOCHS:
        last = errors.iloc[-max(3, objective_window(len(errors))) :]
        scatter = float(last.std(ddof=1))
        completed = run.trials[run.trials["outcome"] == Outcome.COMPLETED]
        rivals = completed["objective"].dropna().sort_values().to_list()
        if len(rivals) > 1 and scatter > rivals[1] - rivals[0]:
            found.append(
                f"{best} won by {rivals[1] - rivals[0]:.3f}, less than its validation error "
                f"scatters from epoch to epoch ({scatter:.3f} over the last {len(last)}): the "
                "order of the first ones may be luck. Confirm them with "
                "`python -m search.confirm`."
            )
        if last.mean() > errors.min() + 3 * scatter:
            epoch = own["epoch"].to_list()[own.index.get_loc(errors.idxmin())]
            found.append(
                f"{best} was better earlier ({errors.min():.3f} at epoch {epoch}) than at its end "
                f"({last.mean():.3f})."
            )
    repaired = int(own[["skipped_samples", "replaced_samples"]].sum().sum())
    if repaired:
        found.append(
            f"{best} had {repaired} samples whose spectral term failed and was left out or "
            "replaced: its loss is not quite the one it was given."
        )
    return found


def _curse(run: Run, best: str) -> list[str]:
    """The best of many is also the luckiest: how much of its value was luck."""
    row = table(run).set_index("name").loc[best]
    if pd.notna(row["confirmed"]):
        more = row["confirmed"] - row["objective"]
        ends = f" [{row['confirmed_low']:.3f}, {row['confirmed_high']:.3f}]"
        text = (
            f"{best}: search value {row['objective']:.3f}, confirmed {row['confirmed']:.3f}"
            + (ends if pd.notna(row["confirmed_low"]) else "")
            + f" over {row['confirmed_seeds']:.0f} fresh training seeds and scenes: {more:+.3f}."
        )
        of_all = confirmed.curse(run)
        if of_all is not None:
            seen = "is seen" if of_all.low > 0 else "is not shown"
            text += f" Over all {of_all.n} finalists it is {of_all}: a winner's curse {seen}."
        return [text]
    if pd.isna(row["capped_error"]):
        return []
    text = (
        f"{best}: search value {row['objective']:.3f}, {row['capped_error']:.3f} on held-out "
        "scenes, one training seed. Other seeds have not been tried: "
        "`python -m search.confirm` does."
    )
    return [text]


def _seeds(run: Run, best: str) -> list[str]:
    """Whether its training seeds scatter by more than those of the other finalists (F test at
    `LEVEL`), or one of them is no better than classical MUSIC."""
    scenes = confirmed.fresh_scenes(run)
    found = dict(iter(scenes[scenes["trial_id"].notna()].groupby("trial_id")))
    seeds = {trial: confirmed.errors(rows).mean(axis=1) for trial, rows in found.items()}
    own = seeds.pop(best, pd.Series(dtype=float))
    if len(own) < 2:
        return []
    scatter, worst = float(own.std(ddof=1)), float(own.max())
    reasons = []
    freedom = sum(len(each) - 1 for each in seeds.values())
    if freedom:
        pooled = sum(float(each.var(ddof=0)) * len(each) for each in seeds.values()) / freedom
        if stats.f.sf(scatter**2, len(own) - 1, freedom, scale=pooled) < LEVEL:
            reasons.append(f"more than that of the other finalists ({pooled**0.5:.3f})")
    board = confirmed.table(run).set_index("name")["confirmed"].dropna()
    classical = float(board.get(REFERENCE, float("inf")))
    if worst >= classical:
        reasons.append(f"and its worst is no better than classical MUSIC ({classical:.3f})")
    if not reasons:
        return []
    text = (
        f"{best} depends on its training seed: {own.min():.3f} to {worst:.3f} over {len(own)} "
        f"seeds (standard deviation {scatter:.3f}), {', '.join(reasons)}."
    )
    return [text]


def _elsewhere(run: Run, best: str) -> list[str]:
    """A network that gets worse as the SNR rises has met SNRs it was not trained for."""
    rows = run.tables["evaluations"]
    rows = rows[(rows["trial_id"] == best) & (rows["estimator"] == "network")]
    found = []
    for count, of in rows.groupby("num_sources"):
        of = of.dropna(subset=list(ENDS)).sort_values("snr_db")
        if of.empty:
            continue
        least, last = of.iloc[int(of["capped_error"].argmin())], of.iloc[-1]
        if last["capped_error_low"] > least["capped_error_high"]:
            best_at, last_at = (
                f"{row['capped_error']:.2f} at {row['snr_db']:g} dB" for row in (least, last)
            )
            found.append(
                f"{best} gets worse where signals are strongest (K = {count}): capped error "
                f"{best_at}, {last_at}{_trained(run)}."
            )
    return found


def _trained(run: Run) -> str:
    fixed = run.plan.get("fixed")
    ends = (
        [fixed.get(f"snr_{end}_db") for end in ("min", "max")] if isinstance(fixed, dict) else []
    )
    if not ends or None in ends:
        return ""
    return f"; it was trained at {ends[0]:g} to {ends[1]:g} dB"
