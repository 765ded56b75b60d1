"""Effects of a design, from the tables `ablations` and `scenes`, and its plan in `run.json`.

With minus without, paired by training seed and scene; means over SNRs and K. The rule for K is
chosen for each arm by the validation scenes of its trainings. A training that did not complete has
no error, and its pair is left out.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from search.report.analysis import Values, crossed_interval, crossed_moments
from search.report.data import Run
from trainer.config import COUNT_RULES
from trainer.intervals import Interval

from .family import judge, verdict

NONE = "none"


@dataclass(frozen=True)
class Outcome:
    """An outcome that is compared: its name for a reader, and the sign of a gain."""

    label: str
    better: int


PRIMARY = {
    "capped_error": Outcome("capped error, K told", -1),
    "source_number_accuracy": Outcome("P(K right), best rule", +1),
}
"""Outcomes that are tested, by the names of their margins."""
SECONDARY = {
    "gospa": Outcome("GOSPA, best rule", -1),
    "source_number_accuracy_mdl": Outcome("P(K right), MDL", +1),
    "gospa_mdl": Outcome("GOSPA, MDL", -1),
}
"""Outcomes that are described, each with an interval of its own."""


@dataclass(frozen=True)
class CellEffect:
    """The effect of a term on an outcome in a network and regime.

    Attributes:
        difference: with minus without; 95 % for this cell alone.
        freedom: degrees of freedom of that interval's standard error.
        without, with_: means of the arms.
        verdict: of the whole family; empty for a secondary outcome.
        rules: for K, of the arms without and with.
        by_snr: the difference at each SNR [dB].
        interaction: difference at the highest minus that at the lowest SNR; None for one SNR.
        lost: trainings that did not complete, without and with; `asked` of each arm.
    """

    network: str
    regime: str
    term: str
    outcome: str
    without: float
    with_: float
    difference: Interval
    freedom: float
    verdict: str
    rules: tuple[str, str]
    by_snr: Mapping[float, Interval]
    interaction: Interval | None
    scenes: int


def is_design(run: Run) -> bool:
    """Return whether a run holds the trainings of a design."""
    return bool(run.planned("design"))


Key = tuple[str, str, str]
"""Network, regime and term."""


def arms_of(run: Run) -> Iterator[Key]:
    """Yield the arms of a design, in its order, `none` first."""
    plan = run.planned("design")
    terms = [NONE, *(term for term in plan["terms"] if term != NONE)]
    for network in plan["networks"]:
        for regime in plan["regimes"]:
            yield from ((network, regime, term) for term in terms)


def tested_rows(run: Run) -> pd.DataFrame:
    """Return the rows of `ablations` of the trainings that are compared."""
    rows = run.tables["ablations"]
    return rows[rows["seed"] > 0]


@lru_cache(maxsize=8)
def best_rules(run: Run) -> Mapping[Key, str]:
    """Return the rule that is right most often on the validation scenes, by arm."""
    rows = tested_rows(run)
    rows = rows[rows["evaluation_seed"] == run.planned("design")["validation_seed"]]
    share = rows.dropna(subset=["rule"]).groupby(["network", "regime", "arm", "rule"])
    found = share["source_number_accuracy"].mean().unstack().reindex(columns=list(COUNT_RULES))
    return {key: str(own.idxmax()) for key, own in found.iterrows() if own.notna().any()}


@lru_cache(maxsize=8)
def effects(run: Run) -> list[CellEffect]:
    """Return the effects of every term on every outcome, as far as two pairs of trainings are
    there; all of the primary ones are one family."""
    tables = _by_training(run)
    rules = best_rules(run)
    found: list[tuple[Key, str, pd.DataFrame, pd.DataFrame]] = []
    for outcome in (*PRIMARY, *SECONDARY):
        for key in arms_of(run):
            network, regime, term = key
            base = (network, regime, NONE)
            if term == NONE or key not in tables or base not in tables:
                continue
            pair = [
                _outcome(tables[arm], outcome, rules.get(arm, COUNT_RULES[0]))
                for arm in (base, key)
            ]
            seeds = pair[0].index.intersection(pair[1].index)
            without, with_ = (one.loc[seeds] for one in pair)
            columns = without.columns.intersection(with_.columns)
            if len(seeds) >= 2 and columns.get_level_values("scene_id").nunique() >= 2:
                found.append((key, outcome, without[columns], with_[columns]))
    primary = [one for one in found if one[1] in PRIMARY]
    margins = run.planned("design")["margins"]
    judged = (
        judge(
            [_mean_over_snr(with_ - without) for _, _, without, with_ in primary],
            [margins[outcome] for _, outcome, *_ in primary],
            [(outcome, key[0]) for key, outcome, *_ in primary],
        )
        if primary
        else None
    )
    cells = []
    for i, (key, outcome, without, with_) in enumerate(found):
        if i < len(primary) and judged is not None:
            difference, freedom = judged.interval(i), float(judged.freedom[i])
            said = verdict(judged, i, PRIMARY[outcome].better)
        else:
            values, said = _mean_over_snr(with_ - without), ""
            difference, freedom = crossed_interval(values), float(crossed_moments(values)[2])
        cells.append(_cell(run, key, outcome, without, with_, difference, freedom, said))
    return cells


def _cell(
    run: Run,
    key: Key,
    outcome: str,
    without: pd.DataFrame,
    with_: pd.DataFrame,
    difference: Interval,
    freedom: float,
    said: str,
) -> CellEffect:
    both = with_ - without
    snrs = sorted(set(both.columns.get_level_values("snr_db")))
    at: dict[float, Any] = {snr: both.xs(snr, level="snr_db", axis=1) for snr in snrs}
    last, first = at[snrs[-1]], at[snrs[0]]
    common = last.columns.intersection(first.columns)
    rules = best_rules(run)
    network, regime, term = key
    return CellEffect(
        network,
        regime,
        term,
        outcome,
        float(without.to_numpy().mean()),
        float(with_.to_numpy().mean()),
        difference,
        freedom,
        said,
        (rules.get((network, regime, NONE), ""), rules.get(key, "")),
        {float(snr): crossed_interval(own.to_numpy()) for snr, own in at.items()},
        crossed_interval((last[common] - first[common]).to_numpy()) if len(snrs) > 1 else None,
        both.columns.get_level_values("scene_id").nunique(),
    )


def _by_training(run: Run) -> dict[Key, pd.DataFrame]:
    """Return the test scenes of each arm."""
    rows = tested_rows(run)
    rows = rows[rows["num_scenes"] != 0]
    trainings = rows[["network", "regime", "arm", "trial_id"]].drop_duplicates("trial_id")
    scenes = run.tables["scenes"]
    scenes = scenes[scenes["evaluation_seed"] == run.planned("design")["scene_seed"]]
    merged = scenes.merge(trainings, on="trial_id")
    return dict(iter(merged.groupby(["network", "regime", "arm"])))


def _outcome(scenes: pd.DataFrame, outcome: str, best: str) -> pd.DataFrame:
    """Return an outcome of an arm, [seed; SNR and scene], the mean over K."""
    rule = "mdl" if outcome.endswith("_mdl") else best
    if outcome == "capped_error":
        values = scenes["capped_error"]
    elif outcome.startswith("gospa"):
        values = scenes[f"gospa_{rule}"]
    else:
        values = (scenes[f"source_number_{rule}"] == scenes["num_sources"]).astype(float)
    table = scenes[["seed", "snr_db", "scene_id"]].assign(value=values)
    wide = table.pivot_table(index="seed", columns=["snr_db", "scene_id"], values="value")
    return wide.dropna(axis=1)


def _mean_over_snr(differences: pd.DataFrame) -> Values:
    """Return [seeds, scenes], the mean over the SNRs of a scene."""
    by_scene = differences.T.groupby(level="scene_id").mean().T
    return np.asarray(by_scene.to_numpy(dtype=float))
