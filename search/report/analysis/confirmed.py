"""The confirmed leaderboard: finalists on fresh training seeds and fresh scenes.

A trial's search value is its objective: one seed, validation scenes, and it was chosen for being
small. The confirmed value is the mean over fresh seeds; the amount by which it is larger is the
winner's curse. Intervals of trials take seeds and scenes as drawn (`statistics.crossed_interval`),
those of classical methods and the bound scenes alone.
"""

import math
from functools import lru_cache
from typing import Any

import pandas as pd

from search.records import OBJECTIVE_INTERVAL
from search.report.data import Cell, Heading, Run, Table, TableRow, interval, number, words
from trainer.config import REFERENCE, EvaluationConfig

from .estimators import BOUNDS, in_order
from .statistics import Interval, combined_interval, crossed_interval, mean_interval

NO_SEED = -1
"""Stands for the training seed of what is not trained."""
REFERENCES = (REFERENCE, "sml")
"""Estimators that a confirmed winner is compared with."""

TRAINING = ["trial_id", "seed"]
CONFIRMED = ("confirmed", "confirmed_low", "confirmed_high")
SEARCH = ("search", "search_low", "search_high")
COLUMNS = ("name", "kind", "seeds", *SEARCH, *CONFIRMED, "curse", "search_rank")


def confirmed_trainings(run: Run) -> pd.DataFrame:
    """Return the trainings that confirmations have scored: trial_id, seed, evaluation_seed,
    confirmed (number of scenes); those on the scenes of most trials come first."""
    rows = run.tables["confirmations"].dropna(subset=["confirmed", "trial_id"])
    rows = rows.groupby([*TRAINING, "evaluation_seed"])["confirmed"].min().reset_index()
    trials = rows.groupby("evaluation_seed")["trial_id"].transform("nunique")
    order = ["trials", "confirmed", "evaluation_seed"]
    return rows.assign(trials=trials).sort_values(order, ascending=False)


@lru_cache(maxsize=8)
def fresh_scenes(run: Run) -> pd.DataFrame:
    """Return the rows of `scenes` that confirmations use, at the SNRs of the objective: of the
    `confirmed_trainings`, and of the estimators scored beside them."""
    scenes, trainings = run.tables["scenes"], confirmed_trainings(run)
    seed = trainings["evaluation_seed"].iloc[:1]
    trainings = trainings[trainings["evaluation_seed"].isin(seed)]
    known = pd.MultiIndex.from_frame(trainings[TRAINING])
    own = (scenes["changes"] == "") & pd.MultiIndex.from_frame(scenes[TRAINING]).isin(known)
    return scenes[
        (scenes["trial_id"].isna() | own)
        & scenes["evaluation_seed"].isin(seed)
        & (scenes["scene_id"] < trainings["confirmed"].min())
        & scenes["snr_db"].isin(run.objective_snr_db)
    ]


def errors(rows: pd.DataFrame) -> pd.DataFrame:
    """Return capped errors, a row per seed and a column per scene: means over SNR and K, of the
    scenes that every seed was scored on."""
    scene = rows["evaluation_seed"].astype(str) + "/" + rows["scene_id"].astype(str)
    grouped = rows.assign(scene=scene, seed=rows["seed"].fillna(NO_SEED))
    return grouped.pivot_table(index="seed", columns="scene", values="capped_error").dropna(axis=1)


@lru_cache(maxsize=8)
def errors_by_name(run: Run) -> dict[str, pd.DataFrame]:
    """Return the `errors` of every classical method, of the bound and of every finalist."""
    scenes = fresh_scenes(run)
    names = scenes["trial_id"].fillna(scenes["estimator"])
    return {str(name): errors(rows) for name, rows in scenes.groupby(names)}


@lru_cache(maxsize=8)
def confirmed_values(run: Run) -> pd.DataFrame:
    """Return one row per classical method and bound, then one per finalist, by confirmed value.

    Columns: name, kind (`bound`, `classical`, `trial`), seeds, search (the trial's objective)
    and confirmed with their 95 % interval ends, curse (confirmed - search), search_rank. What is
    not known is null.
    """
    found = errors_by_name(run)
    own = run.trials[run.trials["trial_id"].isin(set(found))]
    names = {"trial_id": "name", **dict(zip(OBJECTIVE_INTERVAL, SEARCH, strict=True))}
    own = own.assign(search_rank=own["objective"].rank()).rename(columns=names)
    trials: list[dict[Any, Any]] = [
        {**row, **_ends(found[row["name"]]), "kind": "trial", "seeds": len(found[row["name"]])}
        for row in own.to_dict("records")
    ]
    trials.sort(key=lambda row: (pd.isna(row["confirmed"]), row["confirmed"]))
    scenes = fresh_scenes(run)
    shared: list[dict[str, Any]] = [
        {"name": name, "kind": "bound" if name in BOUNDS else "classical"} | _ends(found[name])
        for name in in_order(scenes.loc[scenes["trial_id"].isna(), "estimator"])
    ]
    rows = pd.DataFrame([*shared, *trials], columns=list(COLUMNS))
    return rows.assign(curse=rows["confirmed"] - rows["search"])


def _ends(values: pd.DataFrame) -> dict[str, float]:
    """Return mean and interval: crossed where there are seeds, over scenes for what has none. A
    single seed has no interval, since it says nothing of others."""
    mean = float(values.to_numpy().mean()) if values.size else float("nan")
    if values.shape[1] < 2 or (len(values) == 1 and values.index[0] != NO_SEED):
        return {"confirmed": mean}
    found = crossed_interval(values) if len(values) > 1 else mean_interval(values.iloc[0])
    return dict(zip(CONFIRMED, (found.mean, found.low, found.high), strict=True))


def finalists(run: Run) -> list[str]:
    """Return the ids of the confirmed trials, by confirmed value."""
    rows = confirmed_values(run)
    return list(rows.loc[rows["kind"] == "trial", "name"])


def against(run: Run, trial: str, reference: str) -> Interval | None:
    """Return the capped error of a finalist minus that of a classical method, paired by scene;
    None if there is nothing to pair."""
    found = errors_by_name(run)
    if not {trial, reference} <= set(found) or len(found[reference]) != 1:
        return None
    return _paired(found[trial], found[reference])


def _paired(one: pd.DataFrame, other: pd.DataFrame, level: float = 0.95) -> Interval | None:
    """Return the interval of a difference over common scenes. Seeds of two trials have nothing in
    common and are taken in their order; a single row is compared with all."""
    common = one.columns.intersection(other.columns)
    seeds = min(len(one), len(other)) if len(other) > 1 else len(one)
    if seeds < 2 or len(common) < 2:
        return None
    difference = one[common].to_numpy()[:seeds] - other[common].to_numpy()[:seeds]
    return crossed_interval(difference, level=level)


def references(run: Run) -> dict[str, Interval]:
    """Return the first finalist minus each of `REFERENCES` that it can be paired with."""
    best = next(iter(finalists(run)), "")
    pairs = {name: against(run, best, name) for name in REFERENCES}
    return {name: found for name, found in pairs.items() if found is not None}


def behind(run: Run) -> dict[str, Interval]:
    """Return how much more every other finalist errs than the first one, by name.

    Paired by scene. The first was chosen for being first, so the intervals hold at 95 % for all
    pairs of finalists together (Bonferroni).
    """
    names, values = finalists(run), errors_by_name(run)
    if not names or len(first := values[names[0]]) < 2:
        return {}
    level = 1 - 0.05 / max(math.comb(len(names), 2), 1)
    pairs = {name: _paired(values[name], first, level) for name in names[1:]}
    return {name: found for name, found in pairs.items() if found is not None}


def curse(run: Run) -> Interval | None:
    """Return confirmed minus search value, mean over finalists; None for fewer than two.

    All finalists share the scenes of the search and the fresh ones, so the variance of each of
    these two draws is added to the interval.
    """
    scenes = fresh_scenes(run)
    known = confirmed_values(run)["curse"].dropna()
    luck = errors(scenes[scenes["trial_id"].notna()]).mean()
    if len(known) < 2 or len(luck) < 2:
        return None
    given = run.planned("fixed").get("evaluation.num_scenes")
    validated = int(given or EvaluationConfig().num_scenes)
    shares = [
        (float(known.var()) / len(known), len(known) - 1),
        *((float(luck.var()) / count, len(luck) - 1) for count in (len(luck), validated)),
    ]
    return combined_interval(float(known.mean()), shares, len(known))


def why_no_finalist(run: Run) -> str:
    """Return a sentence for a run without finalists: none was confirmed, or rows are missing."""
    named = confirmed_trainings(run)["trial_id"].nunique()
    if not named:
        none = "Nothing is confirmed yet: run `python -m search.confirm RUN`."
        return run.empty("confirmations", none)
    table = "scenes" if fresh_scenes(run)["trial_id"].isna().all() else "trials"
    return f"{named} trials were confirmed, but the table `{table}` lacks their rows."


def on_other_scenes(run: Run) -> list[str]:
    """Return a sentence that names the trials confirmed on other scenes than most, if any."""
    trainings = confirmed_trainings(run)
    seed = next(iter(trainings["evaluation_seed"]), None)
    here = trainings.loc[trainings["evaluation_seed"] == seed, "trial_id"]
    others = ", ".join(sorted({*trainings["trial_id"]} - {*here}))
    sentence = (
        f"Confirmed on other scenes than the rest, so not compared: {others}. "
        f"`search.confirm --scene-seed {seed}` scores them on these."
    )
    return [sentence] if others else []


def confirmed_table(run: Run) -> Table:
    """Return the confirmed leaderboard as a table."""
    titles = ("search", "confirmed", "curse", "seeds", "rank")
    columns = (Heading(""), *(Heading(title, "number") for title in titles))
    names = finalists(run)
    rows = []
    for row in confirmed_values(run).to_dict("records"):
        rank = number(row["search_rank"], 0).text
        cells = (
            words(row["name"]),
            interval([row[end] for end in SEARCH]),
            interval([row[end] for end in CONFIRMED]),
            number(row["curse"], sign="+"),
            number(row["seeds"], 0),
            Cell(f"{rank} -> {names.index(row['name']) + 1}" if row["kind"] == "trial" else ""),
        )
        rows.append(TableRow(cells))
    return Table("confirmed-table", columns, tuple(rows))


def own_text(run: Run, reruns: Run) -> str:
    """Return the finalists of a user's trainer for a console: its objective, as it reports it, on
    fresh training seeds, over the completed trials of the run `reruns`."""
    sign, trials = run.own_objective[1], reruns.completed
    values = {
        str(name): sign * rows["objective"].to_numpy()
        for name, rows in trials.groupby(trials["trial_id"].str.partition("-")[0])
    }
    names = sorted(values, key=lambda name: float(sign * values[name].mean()))
    if not names:
        return "Nothing is confirmed: no training completed."
    lines = [
        f"{run.name}, confirmed: {run.own_objective_about}; fresh training seeds, 95 % intervals",
        _own_table(run, {name: values[name] for name in names}).text(),
    ]
    level = 1 - 0.05 / max(math.comb(len(names), 2), 1)
    for name in names[1:]:
        pair = [values[name], values[names[0]]]
        if min(map(len, pair)) > 1:
            shares = [(float(x.var(ddof=1)) / len(x), len(x) - 1) for x in pair]
            mean = float(pair[0].mean() - pair[1].mean())
            found = combined_interval(mean, shares, min(map(len, pair)), level=level)
            lines.append(f"{name} - {names[0]}: {found}")
    if same := [name for name in names if len(own := values[name]) > 1 and own.min() == own.max()]:
        lines.append(f"All seeds of {', '.join(same)} gave one value: does `train` use `seed`?")
    return "\n".join(lines)


def _own_table(run: Run, values: dict[str, Any]) -> Table:
    """Return the leaderboard of finalists with these values of the objective, the best first."""
    searched = run.trials.set_index("trial_id")["objective"][list(values)]
    ranks = searched.rank()
    rows = []
    for place, (name, own) in enumerate(values.items(), 1):
        before, mean = run.own_objective[1] * searched[name], own.mean()
        found = mean_interval(own) if len(own) > 1 else None
        cells = (
            words(name),
            number(before),
            interval((mean, found and found.low, found and found.high)),
            number(mean - before, sign="+"),
            number(len(own), 0),
            Cell(f"{number(ranks[name], 0).text} -> {place}"),
        )
        rows.append(TableRow(cells))
    titles = ("search", "confirmed", "confirmed - search", "seeds", "rank")
    columns = (Heading(""), *(Heading(title, "number") for title in titles))
    return Table("confirmed-table", columns, tuple(rows))


def text(run: Run) -> str:
    """Return the confirmed leaderboard for a console; it says so if there is nothing to show."""
    if not (names := finalists(run)):
        return why_no_finalist(run)
    about = (
        f"{run.name}, confirmed: capped error over SNR {run.objective_snrs} dB and all K on "
        f"{fresh_scenes(run)['scene_id'].nunique()} fresh scenes, fresh training seeds, "
        "95 % intervals"
    )
    lines = [about, confirmed_table(run).text()]
    if (found := curse(run)) is not None:
        lines.append(f"winner's curse, confirmed - search: {found}, {found.n} finalists")
    for name, found in references(run).items():
        lines.append(f"{names[0]} - {name}: {found}, paired over {found.n} seeds x scenes")
    return "\n".join([*lines, *on_other_scenes(run)])
