"""Notes on the winner: how steady it was, how it does on other scenes, what noise decides."""

from typing import Any

import pandas as pd
from scipy import stats

from search.plan import Outcome, objective_window
from search.report.data import Run, interval
from trainer.config import REFERENCE, REFINED_NAMES

from . import confirmed
from .leaderboard import CONFIRMED, ENDS, board

LEVEL = 0.05
"""False-alarm rate of the F test: a warning although the winner scatters as the others do."""
LEAST_EPOCHS = 4
"""Epochs from which steadiness is judged."""


def winner(run: Run) -> list[str]:
    """Return notes on the best trial: its steadiness, its luck, its seeds, and high SNRs."""
    if run.best is None:
        return ["No trial completed, so there is no winner to examine."]
    checks = (_unsteady, _luck, _seeds, _high_snr)
    found = [sentence for check in checks for sentence in check(run, run.best)]
    return found or [f"Nothing unusual about {run.best}."]


def noise(run: Run) -> list[str]:
    """Return notes on the differences on the leaderboard, against the uncertainty of scoring."""
    rows = board(run)
    own = rows[rows["outcome"] == Outcome.COMPLETED].dropna(subset=list(ENDS))
    found, ordered = [], _ordered(run)
    if len(own) >= 2:
        best = own.iloc[0]
        half = float(best["capped_error_high"] - best["capped_error_low"]) / 2
        near = (own["capped_error"] - best["capped_error"]).abs() <= half
        close = own[near]["name"].tolist()[1:]
        tied = f", and no other completed trial is that close to {best['name']}."
        if close:
            more = f" and {len(close) - 6} more" if len(close) > 6 else ""
            tied = f"; within that of {best['name']} lie {', '.join(close[:6])}{more}."
            if not ordered:
                tied += " Only fresh seeds and scenes, in pairs, can order them: "
                tied += "`python -m search.confirm`."
        found.append(f"Held-out errors are known to ±{half:.3f}{tied}")
    return found + ordered


def _ordered(run: Run) -> list[str]:
    """Return a sentence on the finalists that confirming has told apart."""
    behind = confirmed.behind(run)
    apart = [name for name, more in behind.items() if more.low > 0]
    close = [f"{name} ({more})" for name, more in behind.items() if more.low <= 0]
    results = [f"is ahead of {', '.join(apart)}"] if apart else []
    results += [f"is not told from {', '.join(close)}"] if close else []
    return [
        f"On fresh seeds and scenes {best} {' and '.join(results)}: capped error, paired by "
        "scene, 95 % over all pairs of finalists together."
        for best in confirmed.finalists(run)[:1]
        if results
    ]


def _unsteady(run: Run, best: str) -> list[str]:
    """Check the scatter of the last epochs against the lead, better earlier epochs, and repaired
    samples."""
    epochs = run.tables["epochs"]
    own = epochs[epochs["trial_id"] == best].sort_values("epoch").set_index("epoch")
    errors = own["validation_capped_error"].dropna()
    found = []
    if len(errors) >= LEAST_EPOCHS:
        last = errors.iloc[-max(3, objective_window(len(errors))) :]
        scatter = float(last.std(ddof=1))
        lead = run.completed["objective"].dropna().nsmallest(2).diff().iloc[1:]
        if (scatter > lead).any():
            found.append(
                f"{best} won by {lead.iloc[0]:.3f}, less than its validation error "
                f"scatters from epoch to epoch ({scatter:.3f} over the last {len(last)}): the "
                "order of the first ones may be luck. Confirm them with "
                "`python -m search.confirm`."
            )
        if last.mean() > errors.min() + 3 * scatter:
            found.append(
                f"{best} was better earlier ({errors.min():.3f} at epoch {errors.idxmin()}) than "
                f"at its end ({last.mean():.3f})."
            )
    repaired = int(own[["skipped_samples", "replaced_samples"]].sum().sum())
    if repaired:
        found.append(
            f"{best} had {repaired} samples whose spectral term failed and was left out or "
            "replaced: its loss is not quite the one that was asked for."
        )
    return found


def _luck(run: Run, best: str) -> list[str]:
    """Compare the search value, which owes to luck, with the confirmed or the held-out one."""
    row = board(run).set_index("name").loc[best]
    if pd.notna(row["confirmed"]):
        ends = interval([row[end] for end in CONFIRMED])
        text = (
            f"{best}: search value {row['objective']:.3f}, confirmed {ends.full} over "
            f"{row['confirmed_seeds']:.0f} fresh training seeds and scenes: "
            f"{row['confirmed'] - row['objective']:+.3f}."
        )
        if (curse := confirmed.curse(run)) is not None:
            seen = "is seen" if curse.low > 0 else "is not shown"
            text += f" Over all {curse.n} finalists it is {curse}: a winner's curse {seen}."
        return [text]
    if pd.isna(row["capped_error"]):
        return []
    values = f"search value {row['objective']:.3f}, {row['capped_error']:.3f} on held-out scenes"
    return [f"{best}: {values}, one training seed. `python -m search.confirm` tries others."]


def _seeds(run: Run, best: str) -> list[str]:
    """Compare the scatter of its training seeds with that of the other finalists (F test at
    `LEVEL`), and its worst seed with classical MUSIC."""
    found = confirmed.errors_by_name(run)
    seeds = {name: found[name].mean(axis=1) for name in confirmed.finalists(run)}
    own = seeds.pop(best, pd.Series(dtype=float))
    if len(own) < 2:
        return []
    scatter, reasons = float(own.std(ddof=1)), []
    freedom = sum(len(each) - 1 for each in seeds.values())
    if freedom:
        pooled = sum(float(each.var(ddof=0)) * len(each) for each in seeds.values()) / freedom
        if stats.f.sf(scatter**2, len(own) - 1, freedom, scale=pooled) < LEVEL:
            reasons.append(f"more than that of the other finalists ({pooled**0.5:.3f})")
    values = confirmed.confirmed_values(run).set_index("name")["confirmed"]
    classical = float(values.get(REFERENCE, float("inf")))
    if own.max() >= classical:
        reasons.append(f"and its worst is no better than classical MUSIC ({classical:.3f})")
    text = (
        f"{best} depends on its training seed: {own.min():.3f} to {own.max():.3f} over {len(own)} "
        f"seeds (standard deviation {scatter:.3f}), {', '.join(reasons)}."
    )
    return [text] if reasons else []


def _high_snr(run: Run, best: str) -> list[str]:
    """Find numbers of sources for which the error grows with the SNR, as it does beyond the SNRs
    of the training."""
    rows = run.tables["evaluations"]
    rows = rows[rows["trial_id"] == best]
    refined = rows[rows["estimator"].isin(REFINED_NAMES)].set_index(["num_sources", "snr_db"])
    rows = rows[rows["estimator"] == "network"]
    fixed = run.planned("fixed")
    ends = [fixed.get(f"snr_{end}_db") for end in ("min", "max")]
    trained = "" if None in ends else f"; it was trained at {ends[0]:g} to {ends[1]:g} dB"
    errors = refined["capped_error"].to_dict()

    def sharper(*at: Any) -> str:
        return f"; refined as `localise` does, {errors[at]:.2f}" if at in errors else ""

    found = []
    for count, of in rows.dropna(subset=list(ENDS)).groupby("num_sources"):
        of = of.sort_values("snr_db")
        least, last = of.iloc[int(of["capped_error"].argmin())], of.iloc[-1]
        if last["capped_error_low"] > least["capped_error_high"]:
            found.append(
                f"{best} gets worse where signals are strongest (K = {count}): capped error "
                f"{least['capped_error']:.2f} at {least['snr_db']:g} dB, "
                f"{last['capped_error']:.2f} at {last['snr_db']:g} dB{trained}"
                f"{sharper(count, last['snr_db'])}."
            )
    return found
