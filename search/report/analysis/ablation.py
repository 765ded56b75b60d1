"""Ablations: the effect of a change, per SNR and over the objective's SNRs, with intervals.

The two arms are the same configurations, seeds and scenes, with and without. Differences are taken
training by training and scene by scene; the mean over the seeds of a configuration is one unit,
crossed with the scenes that all trainings share (`statistics.crossed_interval`). The verdict is
about the capped error over the objective's SNRs; single SNRs and other measures describe it.

A training that did not complete has no error, and its pair is left out of the difference. The
number of such trainings in each arm is part of the answer and stands in every verdict.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import pandas as pd

from search.records import RERUNS
from search.report.data import Cell, Heading, Run, Table, TableRow, interval, number, words

from .statistics import Interval, crossed_interval, detectable

MEASURES = {
    "capped_error": "capped error",
    "success": "success rate",
    "source_number_found": "source-number accuracy",
}
"""Columns of `scenes`, and the names of their means."""

WITHOUT, WITH = "without", "with"
HARDLY = 0.1
"""Share of scenes below which a term is said to act hardly ever."""


@dataclass(frozen=True)
class Effect:
    """With minus without, of one of `MEASURES`.

    Attributes:
        snr_db: None for the mean over the objective's SNRs.
        without, with_: means of the arms.
        difference: over configurations.
        detectable: the smallest true difference that is told from 0 with 80 % probability.
        seeds: trainings per arm; `balanced` if every configuration has as many of them.
        scenes: behind each training.
    """

    measure: str
    snr_db: float | None
    without: float
    with_: float
    difference: Interval
    detectable: float
    seeds: int
    balanced: bool
    scenes: int


def names(run: Run) -> list[str]:
    """Return the names of a run's ablations, without that of a design."""
    rows = run.tables["ablations"]
    return sorted(rows[rows["network"].isna()]["ablation"].unique())


def rows_of(run: Run, name: str) -> pd.DataFrame:
    """Return the rows of an ablation."""
    rows = run.tables["ablations"]
    return rows[rows["ablation"] == name]


@dataclass(frozen=True)
class Incomplete:
    """Numbers of trainings that did not complete, and of those asked for in each arm."""

    without: int
    with_: int
    asked: int

    @property
    def any(self) -> bool:
        """True if there are any."""
        return self.without + self.with_ > 0

    def __str__(self) -> str:
        return f"{self.without} of {self.asked} without, {self.with_} of {self.asked} with"


def incomplete(run: Run, name: str) -> Incomplete:
    """Return how many trainings of an ablation did not complete."""
    rows = rows_of(run, name).drop_duplicates(["arm", "trial_id", "seed"])
    failed = rows[rows["num_scenes"] == 0]["arm"].value_counts()
    asked = rows.drop_duplicates(["trial_id", "seed"])
    return Incomplete(int(failed.get(WITHOUT, 0)), int(failed.get(WITH, 0)), len(asked))


def lost_trainings(run: Run) -> list[str]:
    """Return a sentence for each ablation with trainings that did not complete."""
    where = "Their failures are in {}."
    if run.reruns is None:
        where = "The folder {}, which has their failures, is not there."
    return [
        f"Of the reruns of the ablation {name} did not complete: {lost}. "
        + where.format(f"{run.name}/{RERUNS}")
        for name in names(run)
        if (lost := incomplete(run, name)).any
    ]


@lru_cache(maxsize=32)
def effects(run: Run, name: str) -> list[Effect]:
    """Return every measure over the objective's SNRs, then at each SNR; empty for fewer than two
    configurations."""
    rows = rows_of(run, name).query("num_scenes != 0")
    keys = ["trial_id", "seed", "changes", "evaluation_seed"]
    arms = rows[[*keys, "arm"]].drop_duplicates()
    scenes = run.tables["scenes"]
    scenes = scenes[scenes["changes"].isin(arms["changes"].unique())].merge(arms, on=keys)
    found = []
    for measure in MEASURES:
        wide = scenes.dropna(subset=[measure]).pivot_table(
            index=["arm", "trial_id", "seed"], columns=["snr_db", "scene_id"], values=measure
        )
        for snr_db in (None, *sorted(rows["snr_db"].unique())):
            at = run.objective_snr_db if snr_db is None else (snr_db,)
            effect = _effect(wide.loc[:, wide.columns.isin(at, level="snr_db")], measure, snr_db)
            if effect is not None:
                found.append(effect)
    return found


def verdict(effect: Effect) -> str:
    """Return "helps", "hurts", or "no effect larger than d at 95%", by the capped error."""
    difference = effect.difference
    if difference.excludes_zero:
        return "helps" if difference.mean < 0 else "hurts"
    most = max(abs(difference.low), abs(difference.high))
    return f"no effect larger than {most:.2g} at {difference.level:.0%}"


def sentence(run: Run, name: str) -> str:
    """Return the verdict with its numbers, in one sentence."""
    found, lost = effects(run, name), incomplete(run, name)
    left_out = f"; did not complete: {lost}" if lost.any else ""
    if not found:
        return f"{name}: nothing to compare, {_nothing(run, name)}{left_out}."
    effect = found[0]
    configurations = effect.difference.n
    over = (
        f"{configurations} configurations x {effect.seeds // configurations} seeds"
        if effect.balanced
        else f"{effect.seeds} pairs of trainings of {configurations} configurations"
    )
    share, acts = acting(run, name), ""
    if share is not None:
        few = ": hardly ever, so it could do little; --definition takes one that acts"
        acts = f" The term acts in {share:.1%} of the scenes{few if share < HARDLY else ''}."
    return (
        f"{name}: {verdict(effect)}; capped error {effect.without:.3f} without, "
        f"{effect.with_:.3f} with, difference {effect.difference} over "
        f"{over} x {effect.scenes} scenes; "
        f"detectable: {effect.detectable:.3f}{left_out}.{acts}"
    )


def _nothing(run: Run, name: str) -> str:
    """Return why an ablation has no effects: too few trainings, or a missing table."""
    done = rows_of(run, name).query("num_scenes != 0")
    arms = done.groupby("trial_id")["arm"].nunique()
    if (arms == len((WITHOUT, WITH))).sum() < 2:
        return "fewer than two configurations have both arms"
    return "the table `scenes` lacks what they were scored on"


def acting(run: Run, name: str) -> float | None:
    """Return the share of scenes, over the objective's SNRs, in which the term is above 0 for
    networks that were trained without it; None where it was not measured."""
    rows = rows_of(run, name)
    rows = rows[(rows["arm"] == WITHOUT) & rows["snr_db"].isin(run.objective_snr_db)]
    share = rows["hinge_active"].mean()
    return None if pd.isna(share) else float(share)


def effects_table(run: Run, name: str) -> Table:
    """Return the effects as a table, with the mean term and how often it acts in both arms."""
    columns = (
        Heading("measure"),
        Heading("SNR [dB]", "number", "objective: mean over the SNRs of the objective"),
        Heading("without", "number"),
        Heading("with", "number"),
        Heading("difference [95 %]", "number", "with its 95 % interval"),
        Heading(
            "detectable", "number", "smallest true difference told from 0 with 80 % probability"
        ),
        Heading("term: without, with", "number", "mean of the loss term, share of scenes above 0"),
    )
    terms = rows_of(run, name).dropna(subset=["hinge"]).groupby(["snr_db", "arm"])
    means: Any = terms[["hinge", "hinge_active"]].mean()
    rows = []
    for effect in effects(run, name):
        snr, difference = effect.snr_db, effect.difference
        acts = [means.loc[at] for arm in (WITHOUT, WITH) if (at := (snr, arm)) in means.index]
        cells = (
            words(MEASURES[effect.measure]),
            Cell("objective") if snr is None else Cell(f"{snr:g}", repr(snr)),
            number(effect.without),
            number(effect.with_),
            interval((difference.mean, difference.low, difference.high), sign="+"),
            number(effect.detectable),
            Cell(", ".join(f"{arm['hinge']:.3f} ({arm['hinge_active']:.0%})" for arm in acts)),
        )
        rows.append(TableRow(cells))
    return Table(f"ablation-{name}", columns, tuple(rows), title=f"Ablation: {name}")


def text(run: Run, name: str) -> str:
    """Return the sentence and the table, for a console or a Markdown page."""
    verdict_and_numbers = sentence(run, name)
    if not effects(run, name):
        return verdict_and_numbers
    return f"{verdict_and_numbers}\n\n{effects_table(run, name).text(markdown=True)}"


def _effect(trainings: pd.DataFrame, measure: str, snr_db: float | None) -> Effect | None:
    """Return the effect on trainings [arm, configuration and seed; SNR and scene], means over K;
    None if fewer than two configurations or scenes are in both arms."""
    if not {WITHOUT, WITH} <= set(trainings.index.get_level_values("arm")):
        return None
    arms = {arm: trainings.xs(arm, level="arm") for arm in (WITHOUT, WITH)}
    pairs = arms[WITHOUT].index.intersection(arms[WITH].index)
    both = pd.concat([arm.loc[pairs] for arm in arms.values()], keys=arms)
    known = both.dropna(axis=1).T  # only what every training was scored on
    by_scene = known.groupby(level="scene_id").mean().T
    counts = known.groupby(level="scene_id").size()
    whole = by_scene.loc[:, counts == trainings.columns.get_level_values("snr_db").nunique()]
    if not len(pairs) or whole.shape[1] < 2:
        return None
    configurations = whole.groupby(level=[0, "trial_id"]).mean()
    without, with_ = (configurations.loc[arm].to_numpy(dtype=float) for arm in arms)
    if len(without) < 2:
        return None
    return Effect(
        measure,
        snr_db,
        float(without.mean()),
        float(with_.mean()),
        crossed_interval(with_ - without),
        detectable(with_ - without),
        len(pairs),
        len(set(pairs.get_level_values("trial_id").value_counts())) == 1,
        whole.shape[1],
    )
