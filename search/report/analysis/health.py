"""Health notes: sentences on how far a run can be trusted, from its own tables.

Each check returns sentences, none if there is nothing to say. A sentence names the number behind
it and what to do. Checks of many parameters at once ask for more evidence (Bonferroni), so that a
healthy run of random numbers stays quiet.
"""

import itertools
from collections.abc import Iterator

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from search.plan import Outcome
from search.report.data import Run, SearchedParameter, format_value, parameters
from trainer.intervals import NORMAL_QUANTILE

from . import ablation
from .importance import importances
from .leaderboard import WELL, rungs
from .winner import noise, winner

LEVEL = 0.05
"""Of false alarms, over all parameters of one check together."""
EDGE = 0.05
"""Part of a range, at each end, in which values lie at its bound."""
BEST_SHARE, BEST_LEAST = 0.25, 4
"""Good trials: the best quarter of the completed ones, four at least."""
RANK_LEAST = 8
"""Trials from which a rank correlation is given."""
RARE = 3
"""Trials from which a parameter's effect can be told."""
TOGETHER = 0.8
"""Cramer's V from which two parameters count as one."""
EXPECTED = 2.5
"""Expected number of trials with two choices from which their absence is named."""


def notes(run: Run) -> dict[str, list[str]]:
    """Return sentences by check; every check is there, also those with nothing to say."""
    return {
        "Bounds of the space": at_bounds(run),
        "Parameters without effect": without_effect(run),
        "Parameters that cannot be identified": unidentified(run),
        "Early stopping": early_stopping(run),
        "Divergence": diverged(run),
        "The winner": winner(run),
        "Noise and differences": noise(run),
    } | ({"Loggers": loggers(run)} if run.planned("search").get("log") else {})


def loggers(run: Run) -> list[str]:
    """Name the loggers that have failed."""
    failed = run.planned("log_failures").items()
    return [f"`{name}` lacks part of this run: {why}." for name, why in failed]


def at_bounds(run: Run) -> list[str]:
    """Name the parameters for which more of the best trials lie at an end of the range than chance
    explains (binomial test)."""
    completed = run.completed.dropna(subset=["objective"])
    count = max(BEST_LEAST, round(BEST_SHARE * len(completed)))
    best = completed.nsmallest(count, "objective")["trial_id"]
    good = run.trials["trial_id"].isin(best).to_numpy()
    found = []
    ranged = [p for p in parameters(run) if p.numeric]
    for parameter in ranged:
        places = parameter.places()[good]
        places = places[np.isfinite(places)]
        if len(places) < BEST_LEAST:
            continue
        for at, end, way in (
            (places <= EDGE, parameter.low, "lower"),
            (places >= 1 - EDGE, parameter.high, "upper"),
        ):
            test = stats.binomtest(int(at.sum()), len(places), _at_edge(parameter), "greater")
            if test.pvalue < LEVEL / (2 * len(ranged)):
                bound = format_value(end)
                found.append(
                    f"`{parameter.name}` hugs its {way} bound {bound}: {at.sum()} of the "
                    f"best {len(places)} trials lie there. The optimum may be beyond; widen it."
                )
    return found


def _at_edge(parameter: SearchedParameter) -> float:
    """Return the chance that an even draw lies at one given end; whole numbers have few values."""
    values = parameter.values.dropna().astype(float)
    return 1 / max(values.nunique(), 2) if (values % 1 == 0).all() else EDGE


def without_effect(run: Run) -> list[str]:
    """Name parameters that the data, or theory, cannot tell from having no effect."""
    found = []
    importance = importances(run)
    if isinstance(importance, str):
        found.append(importance)
    elif not (rows := importance.shares)["beyond_chance"].all():
        silent = ", ".join(f"`{name}`" for name in rows.loc[~rows["beyond_chance"], "name"])
        found.append(
            f"Not told from chance with {importance.num_trials} trials at epoch "
            f"{importance.epoch}: {silent}. Absence of evidence, not of effect."
        )
    for name, where in run.planned("no_effect").items():
        found.append(f"`{name}` has no effect by theory {where}.")
    for parameter in parameters(run):
        if not parameter.varies:
            value = format_value(parameter.values.dropna().iloc[0])
            found.append(f"`{parameter.name}` was {value} in every trial: nothing to learn of it.")
    return found


def unidentified(run: Run) -> list[str]:
    """Name parameters that were drawn too rarely, and pairs that moved together."""
    found = []
    varied = [p for p in parameters(run) if p.varies]
    rare = [f"`{p.name}` ({p.values.notna().sum()})" for p in varied if p.values.count() < RARE]
    if rare:
        found.append(
            f"Drawn in fewer than {RARE} trials, which says nothing of them: {', '.join(rare)}."
        )
    found += _never_combined([p for p in varied if not p.numeric and p.values.notna().all()])
    pairs = list(itertools.combinations(varied, 2))
    for one, other in pairs:
        both = (one.values.notna() & other.values.notna()).to_numpy()
        counts = stats.contingency.crosstab(_sides(one, both), _sides(other, both)).count
        if min(counts.shape) < 2:
            continue
        together = stats.contingency.association(counts, method="cramer")
        if together >= TOGETHER and stats.chi2_contingency(counts).pvalue < LEVEL / len(pairs):
            found.append(
                f"`{one.name}` and `{other.name}` moved together in {both.sum()} trials (Cramér's "
                f"V {together:.2f}): what one did cannot be told from what the other did. Draw "
                "them apart, with `--sampler random`."
            )
    return found


def _never_combined(choices: list[SearchedParameter]) -> list[str]:
    """Name pairs of choices that no trial combined although chance would have."""
    found = []
    for one, other in itertools.combinations(choices, 2):
        counts = pd.crosstab(one.values, other.values)
        expected = stats.contingency.expected_freq(counts.to_numpy())
        for i, j in np.argwhere((counts.to_numpy() == 0) & (expected >= EXPECTED)):
            found.append(
                f"`{one.name}` = {counts.index[i]} and `{other.name}` = {counts.columns[j]} never "
                f"met, though {expected[i, j]:.1f} of {len(one.values)} trials were to be "
                "expected: what the one did is mixed with what the other did."
            )
    return found


def early_stopping(run: Run) -> list[str]:
    """Return the rank correlation of each rung with the end, over the trials that completed.

    Where the scheduler has no rungs, those of `asha` are examined.
    """
    completed = run.completed.dropna(subset=["objective"])
    stopped = int((run.trials["outcome"] == Outcome.STOPPED).sum())
    epochs = run.tables["epochs"]
    found: list[str] = []
    few: list[str] = []
    used = rungs(run)
    lowers = " Only trials that went through are counted, which lowers it." if stopped else ""
    was, threw, later = "would have been", "would have thrown", ""
    if used:
        was, threw, later = "was", "threw", ": use later rungs (`--scheduler hyperband`)"
    for rung in used or rungs(run, "asha"):
        at = epochs[epochs["epoch"] == rung].set_index("trial_id")["objective"]
        pairs = completed.assign(early=completed["trial_id"].map(at)).dropna(subset=["early"])
        if len(pairs) < RANK_LEAST:
            few.append(f"{rung} ({len(pairs)})")
            continue
        rank = float(stats.spearmanr(pairs["early"], pairs["objective"]).statistic)
        if not np.isfinite(rank):
            continue
        low, high = _rank_interval(rank, len(pairs))
        says = f"too few trials to say whether stopping there {was} justified"
        if low > 0.5:
            says = f"stopping there {was} justified"
        elif high < 0.5:
            says = f"stopping there {threw} away good trials{later}"
        found.append(
            f"Rung {rung}: rank correlation with the end {rank:.2f} [{low:.2f}, {high:.2f}] over "
            f"{len(pairs)} trials; {says}.{lowers}"
        )
    if few:
        found.append(
            f"Fewer than {RANK_LEAST} completed trials passed rung {', '.join(few)}: too few to "
            f"say whether stopping there {was} justified. Run more"
            + (", or some with `--scheduler none`." if used else ".")
        )
    if found and not used:
        found.insert(0, "The scheduler had no rungs. These are those that `asha` has:")
    if stopped and found:
        found.append(f"{stopped} of {len(run.trials)} trials were stopped at a rung.")
    return found


def diverged(run: Run) -> list[str]:
    """Return how many trials failed, and the regions where far more do than elsewhere."""
    trials = run.trials
    if trials.empty:
        return []
    reruns = ablation.lost_trainings(run)
    bad = (~trials["outcome"].isin(WELL)).to_numpy()
    if not bad.any():
        return [f"None of {len(trials)} trials failed.", *reruns]
    kinds = trials["outcome"][bad].value_counts()
    causes = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    found = [f"{bad.sum()} of {len(trials)} trials failed ({bad.mean():.0%}): {causes}."]
    regions, worst = list(_regions(run)), []
    for name, inside in regions:
        if inside.all() or not inside.any():
            continue
        here, there = ((bad & side).sum() for side in (inside, ~inside))
        counts = [[here, inside.sum() - here], [there, (~inside).sum() - there]]
        p_value = float(stats.fisher_exact(np.array(counts), "greater").pvalue)
        if p_value < LEVEL / len(regions):
            others = f"{there} of {(~inside).sum()} others."
            text = f"{here} of {inside.sum()} trials with {name} failed, against {others}"
            worst.append((p_value, text))
    return found + [text for _, text in sorted(worst)[:4]] + reruns


def _sides(parameter: SearchedParameter, among: NDArray[np.bool_]) -> NDArray[np.str_]:
    """Return the side of the median of each of these trials' values, or the choice."""
    values = parameter.values[among]
    sides = values > values.median() if parameter.numeric else values
    return np.asarray(sides.astype(str))


def _rank_interval(rank: float, count: int) -> tuple[float, float]:
    """Return the 95 % interval of a rank correlation (Fisher's z; Fieller et al. 1957)."""
    most = 1 - 12 / (count**3 - count)  # two neighbours swapped: a perfect order is never certain
    bounded = float(np.clip(rank, -most, most))
    half = NORMAL_QUANTILE * np.sqrt(1.06 / max(count - 3, 1))
    centre = np.arctanh(bounded)
    return float(np.tanh(centre - half)), float(np.tanh(centre + half))


def _regions(run: Run) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Yield every choice, and the lower and upper third of every range."""
    for parameter in parameters(run):
        for choice in parameter.choices:
            yield f"`{parameter.name}` = {choice}", (parameter.values == choice).to_numpy()
        if parameter.numeric:
            places = parameter.places()
            yield f"`{parameter.name}` in the lowest third of its range", places < 1 / 3
            yield f"`{parameter.name}` in the highest third of its range", places > 2 / 3
