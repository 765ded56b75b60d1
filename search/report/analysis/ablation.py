"""Does it help? What an ablation found, per SNR and over the objective's SNRs, with intervals.

The two arms are the same configurations, seeds and scenes, with and without. Differences are taken
training by training and scene by scene; the mean over the seeds of a configuration is one unit,
crossed with the scenes that all trainings share (`statistics.crossed_interval`). The verdict is
about the capped error over the objective's SNRs; the single SNRs and other measures describe it.

A training that did not complete has no error, and its pair is left out of the difference: how many
there are in each arm is said with every verdict, for it is a part of the answer.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from search.records import RERUNS
from search.report.data import Run, as_run, once_per_run

from .statistics import Interval, crossed_interval, detectable

MEASURES = {
    "capped_error": "capped error",
    "success": "success rate",
    "source_number_found": "source-number accuracy",
}
"""Columns of `scenes`, and what their means are called."""

WITHOUT, WITH = "without", "with"
HARDLY = 0.1
"""Share of scenes below which a term is said hardly ever to act."""


@dataclass(frozen=True)
class Effect:
    """With minus without.

    Attributes:
        measure: a key of `MEASURES`.
        snr_db: None for the mean over the objective's SNRs.
        without, with_: means of the arms.
        difference: over configurations.
        detectable: the smallest true difference that would be told from 0 with 80 % probability.
        seeds: trainings per arm.
        balanced: whether every configuration has as many of them.
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


def names(run: Run | str | Path) -> list[str]:
    """The ablations that a run has."""
    return sorted(as_run(run).tables["ablations"]["ablation"].unique())


@dataclass(frozen=True)
class Incomplete:
    """Trainings that did not complete, and those that were asked for in each arm."""

    without: int
    with_: int
    asked: int

    @property
    def any(self) -> bool:
        """Whether there are any."""
        return self.without + self.with_ > 0

    def __str__(self) -> str:
        return f"{self.without} of {self.asked} without, {self.with_} of {self.asked} with"


def incomplete(run: Run | str | Path, name: str) -> Incomplete:
    """How many trainings of an ablation came to nothing."""
    rows = as_run(run).tables["ablations"]
    rows = rows[rows["ablation"] == name].drop_duplicates(["arm", "trial_id", "seed"])
    failed = rows[rows["num_scenes"] == 0]["arm"].value_counts()
    asked = rows.drop_duplicates(["trial_id", "seed"])
    return Incomplete(int(failed.get(WITHOUT, 0)), int(failed.get(WITH, 0)), len(asked))


def lost_trainings(run: Run) -> list[str]:
    """A sentence for each ablation of which trainings did not complete."""
    counts = {name: incomplete(run, name) for name in names(run)}
    return [
        f"Of the reruns of the ablation {name} did not complete: {lost}. "
        + (
            f"The folder {run.name}/{RERUNS}, which has their failures, is not there."
            if run.reruns is None
            else f"Their failures are in {run.name}/{RERUNS}."
        )
        for name, lost in counts.items()
        if lost.any
    ]


@once_per_run
def effects(run: Run | str | Path, name: str) -> list[Effect]:
    """Every measure over the objective's SNRs, then at each SNR; empty if there are fewer than two
    configurations to compare."""
    run = as_run(run)
    rows = run.tables["ablations"]
    rows = rows[(rows["ablation"] == name) & (rows["num_scenes"] != 0)]
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
    """helps, hurts, or no effect larger than d at 95 %: by the sign of the capped error."""
    difference = effect.difference
    if difference.excludes_zero:
        return "helps" if difference.mean < 0 else "hurts"
    most = max(abs(difference.low), abs(difference.high))
    return f"no effect larger than {most:.2g} at {difference.level:.0%}"


def sentence(run: Run | str | Path, name: str, found: list[Effect]) -> str:
    """The verdict with its numbers, in one sentence; `found` are the effects."""
    lost = incomplete(run, name)
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
    acts = acting(run, name)
    hardly = f" The term acts in {acts:.1%} of the scenes" if acts is not None else ""
    if acts is not None and acts < HARDLY:
        hardly += ": hardly ever, so it could do little; --definition takes one that acts"
    return (
        f"{name}: {verdict(effect)}; capped error {effect.without:.3f} without, "
        f"{effect.with_:.3f} with, difference {effect.difference} over "
        f"{over} x {effect.scenes} scenes; "
        f"detectable: {effect.detectable:.3f}{left_out}." + (f"{hardly}." if hardly else "")
    )


def _nothing(run: Run | str | Path, name: str) -> str:
    """Why an ablation has no effects: what was never there, or is there no more."""
    rows = as_run(run).tables["ablations"]
    done = rows[(rows["ablation"] == name) & (rows["num_scenes"] != 0)]
    arms = done.groupby("trial_id")["arm"].nunique()
    if (arms == len((WITHOUT, WITH))).sum() < 2:
        return "fewer than two configurations have both arms"
    return "the table `scenes` lacks what they were scored on"


def acting(run: Run | str | Path, name: str) -> float | None:
    """In which share of the scenes, over the SNRs of the objective, the term is above 0 for the
    networks that were trained without it; None where nobody looked."""
    run = as_run(run)
    rows = run.tables["ablations"]
    rows = rows[(rows["ablation"] == name) & (rows["arm"] == WITHOUT)]
    share = rows[rows["snr_db"].isin(run.objective_snr_db)]["hinge_active"].mean()
    return None if pd.isna(share) else float(share)


def hinges(run: Run | str | Path, name: str) -> pd.DataFrame:
    """Mean eigengap term and how often it acts, by arm and SNR; empty where there is none."""
    rows = as_run(run).tables["ablations"]
    rows = rows[(rows["ablation"] == name)].dropna(subset=["hinge"])
    columns = ["hinge", "hinge_active"]
    return pd.DataFrame(rows.pivot_table(index="snr_db", columns="arm", values=columns))


def text(run: Run | str | Path, name: str, found: list[Effect] | None = None) -> str:
    """The sentence and a table, for a console or a Markdown page; `found` are the effects."""
    run = as_run(run)
    found = effects(run, name) if found is None else found
    if not found:
        return sentence(run, name, found)
    acts = hinges(run, name)
    lines = [sentence(run, name, found), "", *TABLE_HEAD]
    for effect in found:
        where = "objective" if effect.snr_db is None else f"{effect.snr_db:g} dB"
        lines.append(
            f"| {MEASURES[effect.measure]} | {where} | {effect.without:.3f} | {effect.with_:.3f} "
            f"| {effect.difference} | {effect.detectable:.3f} | {_acts(acts, effect.snr_db)} |"
        )
    return "\n".join(lines)


TABLE_HEAD = (
    "| measure | SNR | without | with | difference [95 %] | detectable | term: without, with |",
    "|---" * 7 + "|",
)


def _acts(acts: pd.DataFrame, snr_db: float | None) -> str:
    """Mean term and share of scenes where it is above 0, of both arms."""
    if snr_db is None or snr_db not in acts.index:
        return ""
    row = acts.loc[snr_db]
    return ", ".join(
        f"{row[('hinge', arm)]:.3f} ({row[('hinge_active', arm)]:.0%})"
        for arm in (WITHOUT, WITH)
        if ("hinge", arm) in row.index and pd.notna(row[("hinge", arm)])
    )


def _effect(trainings: pd.DataFrame, measure: str, snr_db: float | None) -> Effect | None:
    """The effect on trainings [arm, configuration and seed; SNR and scene], means over K; None if
    fewer than two configurations or scenes are in both arms."""
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
    without, with_ = (_by_configuration(pd.DataFrame(whole.loc[arm])) for arm in arms)
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


def _by_configuration(trainings: pd.DataFrame) -> NDArray[np.float64]:
    """[configurations, scenes]: means over seeds."""
    return trainings.groupby(level="trial_id").mean().to_numpy(dtype=float)
