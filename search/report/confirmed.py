"""What finalists did again: on fresh training seeds and fresh scenes, after the search had chosen.

The value that the search saw is that of the best of many, and so too good (the winner's curse). A
confirmed value is the mean capped error over the objective's SNRs and all K of trainings that no
choice has seen; its unit of chance is the training seed.
"""

import pandas as pd

from .runs import Run
from .statistics import Interval, mean_interval

TABLE = "confirmations"


def confirmed(run: Run) -> dict[str, Interval]:
    """Confirmed capped error with its interval by trial; trials with fewer than two seeds have
    none."""
    rows = run.tables.get(TABLE, pd.DataFrame())
    if rows.empty:
        return {}
    # other reruns, of ablations for instance, change something but the seed
    own = rows[(rows["estimator"] == "network") & (rows["changes"] == "")]
    own = own[own["snr_db"].isin(run.objective_snr_db)].dropna(subset=["capped_error"])
    found = {}
    for trial_id, of in own.groupby("trial_id"):
        by_seed = of.groupby("seed")["capped_error"].mean()
        if len(by_seed) >= 2:
            found[str(trial_id)] = mean_interval(by_seed.to_numpy(dtype=float))
    return found


def confirmed_baselines(run: Run) -> dict[str, tuple[float, float, float]]:
    """Mean, and mean interval ends, of the bound and the classical methods on the same scenes."""
    rows = run.tables.get(TABLE, pd.DataFrame())
    if rows.empty:
        return {}
    ends = ["capped_error", "capped_error_low", "capped_error_high"]
    shared = rows[rows["trial_id"].isna() & rows["snr_db"].isin(run.objective_snr_db)]
    means = shared.dropna(subset=ends).groupby("estimator")[ends].mean()
    return {str(name): tuple(row) for name, row in zip(means.index, means.to_numpy(), strict=True)}
