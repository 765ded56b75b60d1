"""Confusion of K: which number of sources each method's own rule says, per SNR and true K."""

import pandas as pd

from search.report.data import Heading, Run, Table, TableRow, number, words

from .estimators import LABELS, in_order


def confusion(run: Run) -> pd.DataFrame:
    """Return the shares of held-out scenes in which K is said to be 0, 1, ..., without reruns.

    Columns: estimator, snr_db, num_sources, num_scenes, then one for each K that is said. Rows of
    the best trial, by MUSIC alone and refined, and of the classical methods that were asked.
    """
    rows = run.tables["scenes"].dropna(subset=["source_number"])
    mine = (rows["trial_id"] == run.best) | rows["trial_id"].isna()
    rows = rows[mine & rows["changes"].isna()].astype({"source_number": int})
    if rows.empty:
        return pd.DataFrame()
    at = [rows[name] for name in ("estimator", "snr_db", "num_sources")]
    counts = pd.crosstab(at, rows["source_number"])
    counts = counts.reindex(columns=range(int(rows["source_number"].max()) + 1), fill_value=0)
    scenes = counts.sum(axis=1)
    return counts.div(scenes, axis=0).assign(num_scenes=scenes).reset_index()


def confusion_table(run: Run) -> Table | None:
    """Return `confusion` as a table, K by K; None if no method was asked."""
    found = confusion(run)
    if found.empty:
        return None
    said = [column for column in found if isinstance(column, int)]
    columns = (
        Heading(""),
        *(Heading(title, "number") for title in ("SNR [dB]", "K", "scenes")),
        *(
            Heading(f"said {k}", "number", f"share of scenes whose K is said to be {k}")
            for k in said
        ),
    )
    rows = tuple(
        TableRow(
            (
                words(LABELS.get(name, name)),
                number(row["snr_db"], 0),
                number(row["num_sources"], 0),
                number(row["num_scenes"], 0),
                *(number(row[k], 2) for k in said),
            ),
            "best" if name.startswith("network") else "shared",
        )
        for name in in_order(found["estimator"])
        for row in found[found["estimator"] == name].to_dict("records")
    )
    note = (
        "Errors above are with K told. This is what each method says of K: by the widest relative "
        "gap between eigenvalues, never 0; the posterior and a network that is refined by the "
        "evidence of the snapshots."
    )
    return Table("source-number-table", columns, rows, note=note)
