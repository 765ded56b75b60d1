"""The confirmed leaderboard: what finalists do on fresh training seeds and fresh scenes.

A trial's search value is its objective: one seed, validation scenes, and it was chosen for being
small. The confirmed value is the mean over fresh seeds; by what it is larger is the winner's
curse.
Intervals of trials take seeds and scenes as drawn (`statistics.crossed_interval`), those of
classical methods and the bound scenes alone.
"""

from pathlib import Path

import pandas as pd

from search.records import JUDGED
from search.report.data import Run, as_run, once_per_run
from trainer.config import EvaluationConfig

from .estimators import BOUND, ROW_ORDER
from .statistics import Interval, combined_interval, crossed_interval, mean_interval

NO_SEED = -1
"""Stands for the training seed of what is not trained."""
REFERENCES = ("lmmse_music", "sml")
"""What a confirmed winner is compared with."""

TRAINING = ["trial_id", "seed"]
SEARCH = ("search", "search_low", "search_high")
COLUMNS = (
    *("name", "kind", "seeds", *SEARCH),
    *("confirmed", "confirmed_low", "confirmed_high", "curse", "search_rank"),
)


@once_per_run
def fresh_scenes(run: Run) -> pd.DataFrame:
    """Rows of `scenes` that confirm: of unchanged reruns, and of what was scored beside them, at
    the SNRs of the objective."""
    scenes = run.tables["scenes"]
    asked = asked_for(run)
    seeds = asked["evaluation_seed"].iloc[:1]
    if asked.empty:
        seeds = run.tables["confirmations"]["evaluation_seed"].drop_duplicates()
    ours = scenes["evaluation_seed"].isin(seeds) & scenes["snr_db"].isin(run.objective_snr_db)
    unchanged = scenes[ours & (scenes["trial_id"].isna() | (scenes["changes"] == ""))]
    own = unchanged["trial_id"].notna()
    if asked.empty:  # of an earlier version: those of an ablation's arms are fewer
        size = unchanged.groupby(TRAINING, dropna=False)["scene_id"].transform("nunique")
        return unchanged[~own | (size == size.max())]
    asked = asked[asked["evaluation_seed"].isin(seeds)]
    trainings = pd.MultiIndex.from_frame(asked[TRAINING])
    ours = ~own | pd.MultiIndex.from_frame(unchanged[TRAINING]).isin(trainings)
    return unchanged[ours & (unchanged["scene_id"] < asked["confirmed"].min())]


def asked_for(run: Run) -> pd.DataFrame:
    """Trainings that a confirmation asked for: trial_id, seed, evaluation_seed, confirmed; those
    on the scenes that most trials were confirmed on come first."""
    rows = run.tables["confirmations"].dropna(subset=["confirmed", "trial_id"])
    scored = rows.groupby([*TRAINING, "evaluation_seed"])["confirmed"]
    rows = scored.min().reset_index()
    trials = rows.groupby("evaluation_seed")["trial_id"].transform("nunique")
    order = rows.assign(trials=trials).sort_values(
        ["trials", "confirmed", "evaluation_seed"], ascending=False
    )
    return order.drop(columns="trials")


def elsewhere(run: Run) -> list[str]:
    """Says of trials that were confirmed on other scenes than most that they do not compare."""
    by_seed = dict(iter(asked_for(run).groupby("evaluation_seed", sort=False)["trial_id"]))
    if len(by_seed) < 2:
        return []
    seed, here = next(iter(by_seed.items()))
    others = ", ".join(sorted(set().union(*by_seed.values()) - set(here)))
    said = (
        f"Confirmed on other scenes than the rest, so not compared: {others}. "
        f"`search.confirm --scene-seed {seed}` scores them on these."
    )
    return [said] if others else []


def errors(rows: pd.DataFrame) -> pd.DataFrame:
    """Capped error, a row per seed and a column per scene: means over SNR and K; only scenes that
    every seed was scored on."""
    scene = rows["evaluation_seed"].astype(str) + "/" + rows["scene_id"].astype(str)
    grouped = rows.assign(scene=scene, seed=rows["seed"].fillna(NO_SEED))
    return grouped.pivot_table(index="seed", columns="scene", values="capped_error").dropna(axis=1)


@once_per_run
def table(run: Run | str | Path) -> pd.DataFrame:
    """One row per classical method and bound, then one per finalist, by confirmed value.

    Columns: name, kind (`bound`, `classical`, `trial`), seeds, search (the trial's objective)
    and confirmed with their 95 % interval ends, curse (confirmed - search), search_rank. What is
    not known is null.
    """
    run = as_run(run)
    scenes = fresh_scenes(run)
    rows: list[dict[str, object]] = []
    shared = scenes[scenes["trial_id"].isna()]
    for name in [n for n in ROW_ORDER if n in set(shared["estimator"])]:
        values = errors(shared[shared["estimator"] == name])
        kind = "bound" if name == BOUND else "classical"
        rows.append({"name": name, "kind": kind, **_ends(values)})
    found = dict(iter(scenes[scenes["trial_id"].notna()].groupby("trial_id")))
    own = run.trials[run.trials["trial_id"].isin(found)]
    own = own.assign(search_rank=own["objective"].rank())
    trials = []
    for trial in own.to_dict("records"):
        values = errors(found[trial["trial_id"]])
        ends = _ends(values)
        search = dict(zip(SEARCH, (trial[name] for name in JUDGED), strict=True))
        curse = None if pd.isna(search["search"]) else ends["confirmed"] - search["search"]
        about = {"name": trial["trial_id"], "kind": "trial", "seeds": len(values)}
        found_here = {"curse": curse, "search_rank": trial["search_rank"]}
        trials.append(about | search | ends | found_here)
    trials.sort(key=lambda row: (pd.isna(row["confirmed"]), row["confirmed"]))
    return pd.DataFrame([*rows, *trials], columns=list(COLUMNS))


def against(run: Run | str | Path, trial: str, reference: str) -> Interval | None:
    """Capped error of a finalist minus that of a classical method, paired by scene; None if there
    is nothing to pair."""
    scenes = fresh_scenes(as_run(run))
    ours = errors(scenes[scenes["trial_id"] == trial])
    theirs = errors(scenes[scenes["trial_id"].isna() & (scenes["estimator"] == reference)])
    common = ours.columns.intersection(theirs.columns)
    if len(ours) < 2 or len(theirs) != 1 or len(common) < 2:
        return None
    return crossed_interval(ours[common].to_numpy() - theirs[common].to_numpy())


def ahead(run: Run | str | Path) -> dict[str, Interval]:
    """How much more every other finalist errs than the first one of `table`, by name.

    Paired by scene; seeds of two trials have nothing in common and meet in their order. The first
    was chosen for being first, so the intervals hold at 95 % for all pairs of finalists together
    (Bonferroni).
    """
    run = as_run(run)
    scenes = fresh_scenes(run)
    names = table(run).query("kind == 'trial'")["name"].to_list()
    pairs = max(len(names) * (len(names) - 1) // 2, 1)
    values = [errors(scenes[scenes["trial_id"] == name]) for name in names]
    found = {}
    for name, other in zip(names[1:], values[1:], strict=True):
        common = other.columns.intersection(values[0].columns)
        seeds = min(len(other), len(values[0]))
        if seeds < 2 or len(common) < 2:
            continue
        more = other[common].to_numpy()[:seeds] - values[0][common].to_numpy()[:seeds]
        found[name] = crossed_interval(more, level=1 - 0.05 / pairs)
    return found


def curse(run: Run | str | Path) -> Interval | None:
    """Confirmed minus search value, mean over finalists; None of fewer than two.

    The scenes that the search validated on and the fresh ones are two draws, each common to all
    finalists: their luck is in the difference, and in the interval.
    """
    run = as_run(run)
    scenes = fresh_scenes(run)
    known = table(run)["curse"].dropna()
    luck = errors(scenes[scenes["trial_id"].notna()]).mean()
    if len(known) < 2 or len(luck) < 2:
        return None
    shares = [
        (float(known.var()) / len(known), len(known) - 1),
        *((float(luck.var()) / count, len(luck) - 1) for count in (len(luck), _validated(run))),
    ]
    return combined_interval(float(known.mean()), shares, len(known))


def _validated(run: Run) -> int:
    """Scenes behind the search's values, of each SNR and K."""
    fixed = run.plan.get("fixed")
    given = fixed.get("evaluation.num_scenes") if isinstance(fixed, dict) else None
    return int(given or EvaluationConfig().num_scenes)


def nothing(run: Run) -> str:
    """Why `table` has no finalist: none was confirmed, or what they rest on is not there."""
    named = run.tables["confirmations"]["trial_id"].dropna().unique()
    if not len(named):
        none = "Nothing is confirmed yet: run `python -m search.confirm RUN`."
        return run.empty("confirmations", none)
    table = "scenes" if fresh_scenes(run)["trial_id"].isna().all() else "trials"
    return f"{len(named)} trials were confirmed, but the table `{table}` lacks their rows."


def text(run: Run | str | Path) -> str:
    """The leaderboard for a console; says so if there is nothing to show."""
    run = as_run(run)
    board = table(run)
    if not (board["kind"] == "trial").any():
        return nothing(run)
    scenes = fresh_scenes(run)
    snr = ", ".join(f"{s:g}" for s in run.objective_snr_db)
    about = f"{run.name}, confirmed: capped error over SNR {snr} dB and all K on "
    about += f"{scenes['scene_id'].nunique()} fresh scenes, fresh training seeds, 95 % intervals"
    lines = [
        about,
        f"{'':18}{'search':>8}{'':16}{'confirmed':>11}{'':16}{'curse':>9}{'seeds':>7}{'rank':>9}",
    ]
    place = 0
    for row in board.to_dict("records"):
        line = f"{row['name']:18}"
        for name, width in (("search", 8), ("confirmed", 11)):
            ends = f"[{_number(row[f'{name}_low'])}, {_number(row[f'{name}_high'])}]"
            known = pd.notna(row[f"{name}_low"])
            line += f"{_number(row[name]):>{width}}{ends if known else '':>16}"
        if row["kind"] == "trial":
            place += 1
            ranks = f"{_number(row['search_rank'], 0)} -> {place}"
            line += f"{_number(row['curse'], 3, '+'):>9}{row['seeds']:7.0f}{ranks:>9}"
        lines.append(line)
    if (found := curse(run)) is not None:
        lines.append(f"winner's curse, confirmed - search: {found}, {found.n} finalists")
    best = str(board[board["kind"] == "trial"]["name"].iloc[0])
    for reference in REFERENCES:
        if (found := against(run, best, reference)) is not None:
            lines.append(f"{best} - {reference}: {found}, paired over {found.n} seeds x scenes")
    return "\n".join([*lines, *elsewhere(run)])


def _ends(values: pd.DataFrame) -> dict[str, float]:
    """Mean and interval: crossed where there are seeds, over scenes of what has none; of a single
    seed no interval, since nobody knows what another one would do."""
    if values.shape[1] < 2:  # none, if its seeds were scored on different scenes
        return {"confirmed": float(values.iloc[:, 0].mean()) if values.size else float("nan")}
    if len(values) > 1:
        found = crossed_interval(values.to_numpy())
    elif values.index[0] == NO_SEED:
        found = mean_interval(values.iloc[0])
    else:
        return {"confirmed": float(values.iloc[0].mean())}
    return {
        "confirmed": found.mean,
        "confirmed_low": found.low,
        "confirmed_high": found.high,
    }


def _number(value: float | None, digits: int = 3, sign: str = "") -> str:
    return "-" if value is None or pd.isna(value) else f"{value:{sign}.{digits}f}"
