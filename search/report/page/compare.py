"""Two runs side by side: what differs in their plans, their numbers, their winners, their figures.

The two winners are compared scene by scene, where both were scored on the same scenes; medians
over other scenes, or of other panels, do not compare and are not compared.
"""

from pathlib import Path
from typing import Any

import pandas as pd

from search.plan import Outcome
from search.report.analysis import CONFIRMED, ENDS, SCENE, paired_difference, table
from search.report.data import Run
from search.report.figures import pictures_of, short_label
from trainer.atomic import write_atomically
from trainer.intervals import Interval

from . import sections
from .layout import (
    Cell,
    Heading,
    Page,
    Row,
    Section,
    Shown,
    Table,
    html,
    number,
    with_interval,
    words,
)
from .write import drawn, not_writable

SCENES_OF = ("scene.", "evaluation.")
"""Settings that decide what the held-out scenes are."""


def write_comparison(run: Run, other: Run, folder: Path) -> Path:
    """Writes `compare-<other>.html`; where it lies.

    Raises:
        RunNotWritable: if the folder takes no files.
    """
    path = folder / f"compare-{other.name}.html"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(path, html(page_of(run, other)).encode())
    except OSError as error:
        raise not_writable(folder, error) from None
    return path


def page_of(run: Run, other: Run) -> Page:
    """The page of two runs."""
    return Page(
        title=f"{run.name} and {other.name}",
        subtitle="Two searches side by side",
        lead=[
            f"{run.name}: {sections.state(run)}",
            f"{other.name}: {sections.state(other)}",
            _verdict(run, other),
        ],
        notes=[f"{r.name}: {note}" for r in (run, other) for note in r.notes],
        sections=(
            Section("numbers", "Numbers", tables=[_numbers(run, other)]),
            _differences(run, other),
            Section("figures", "Figures", figures=_figures(run, other)),
        ),
    )


def winners(run: Run, other: Run) -> Interval | str:
    """Capped error of the first run's best trial minus the other's, paired by scene, or why
    not."""
    for each in (run, other):
        if each.best is None:
            return f"The winners cannot be compared: no trial of {each.name} completed."
    if unlike := _unlike(run, other, SCENES_OF):
        return (
            "The winners cannot be compared scene by scene: the runs have other scenes "
            f"({', '.join(unlike)})."
        )
    sides = [_scenes(each) for each in (run, other)]
    pairs = sides[0].merge(sides[1], on=SCENE, suffixes=("", "_other"))
    units = pairs["evaluation_seed"].astype(str) + "/" + pairs["scene_id"].astype(str)
    if units.nunique() < 2:
        return "The winners cannot be compared: they share fewer than two scored scenes."
    if pairs["capped_error"].equals(pairs["capped_error_other"]):
        return "The winners cannot be told apart: they score the same on every scene."
    return paired_difference(
        pairs["capped_error"], pairs["capped_error_other"], units=units.to_numpy(dtype=str)
    )


def _verdict(run: Run, other: Run) -> str:
    difference = winners(run, other)
    if isinstance(difference, str):
        return difference
    if not difference.excludes_zero:
        says = "is not shown to differ from"
    else:
        says = "beats" if difference.mean < 0 else "loses to"
    return (
        f"The best trial of {run.name} ({run.best}) {says} that of {other.name} ({other.best}): "
        f"capped error {difference}, paired over {difference.n} held-out scenes (95 % t interval)."
    )


def _numbers(run: Run, other: Run) -> Table:
    runs = (run, other)
    boards = [table(each) for each in runs]
    bests = [board[board["best"]].head(1).to_dict("records") for board in boards]

    def best(name: str, digits: int = 3) -> list[Any]:
        return [number(rows[0][name] if rows else None, digits) for rows in bests]

    lines: list[tuple[str, list[Any]]] = [
        ("trials ended", [number(len(r.trials), 0) for r in runs]),
        *(
            (
                f"trials {outcome}",
                [number((r.trials["outcome"] == outcome).sum(), 0) for r in runs],
            )
            for outcome in Outcome
            if any((r.trials["outcome"] == outcome).any() for r in runs)
        ),
        ("training time [h]", [number(r.trials["seconds"].sum() / 3600, 2) for r in runs]),
        ("best trial", [Cell(r.best or "–", kind="number") for r in runs]),
        ("its search value", best("objective")),
        (
            "its held-out error",
            [
                with_interval([rows[0][end] for end in ENDS]) if rows else number(None)
                for rows in bests
            ],
        ),
        (
            "its confirmed error",
            [
                with_interval([rows[0][end] for end in CONFIRMED]) if rows else number(None)
                for rows in bests
            ],
        ),
        ("its RMSPE [°]", best("rmspe_deg", 1)),
    ]
    names = list(dict.fromkeys(n for b in boards for n in b.loc[b["trial_id"].isna(), "name"]))
    for name in names:
        found = [board[board["name"] == name].head(1).to_dict("records") for board in boards]
        cells = [
            with_interval([rows[0][end] for end in ENDS]) if rows else number(None)
            for rows in found
        ]
        lines.append((f"{short_label(name)}: held-out error", cells))
    rows = tuple(Row((words(name), *cells)) for name, cells in lines)
    headings = (Heading(""), Heading(run.name, True), Heading(other.name, True))
    return Table("numbers-table", headings, rows)


def _differences(run: Run, other: Run) -> Section:
    """Settings and ranges in which the two plans differ."""
    rows = []
    for part in ("search", "fixed", "space"):
        one, two = (_mapping(each.plan.get(part)) for each in (run, other))
        for name in sorted({*one, *two}):
            if one.get(name) != two.get(name) and name not in ("name", "out"):
                sides = (words(_plain(side.get(name)), "code") for side in (one, two))
                rows.append(Row((words(name), *sides)))
    if not rows:
        return Section("plans", "Plans", ["The two runs have the same plan."])
    headings = (Heading("setting"), Heading(run.name), Heading(other.name))
    differ = Table("plans-table", headings, tuple(rows), note="Only what differs is shown.")
    return Section("plans", "Plans", tables=[differ])


def _figures(run: Run, other: Run) -> list[tuple[Shown, ...]]:
    sides = [{p.name: p for p in pictures_of(each)} for each in (run, other)]
    rows = []
    for name in dict.fromkeys([*sides[0], *sides[1]]):
        row = []
        for each, pictures in zip((run, other), sides, strict=True):
            if name in pictures:
                row.append(drawn(each, pictures[name], None))
            else:
                title = (sides[0] | sides[1])[name].title
                row.append(Shown(title, reason=f"{each.name} has no such figure.", run=each.name))
        rows.append(tuple(row))
    return rows


def _scenes(run: Run) -> pd.DataFrame:
    rows = run.tables["scenes"]
    if "changes" in rows:  # reruns are other trainings
        rows = rows[rows["changes"].isna()]
    own = rows[(rows["trial_id"] == run.best) & (rows["estimator"] == "network")]
    return own[own["snr_db"].isin(run.objective_snr_db)].dropna(subset=["capped_error"])


def _unlike(run: Run, other: Run, prefixes: tuple[str, ...]) -> list[str]:
    one, two = (_mapping(each.plan.get("fixed")) for each in (run, other))
    return [
        name
        for name in sorted({*one, *two})
        if name.startswith(prefixes) and one.get(name) != two.get(name)
    ]


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _plain(value: Any) -> str | None:
    return None if value is None else str(value)
