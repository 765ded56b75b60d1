"""Two runs side by side: differences of their plans, their numbers, their winners, their figures.

The two winners are compared scene by scene, where both were scored on the same scenes; medians
over other scenes, or of other panels, do not compare and are not compared.
"""

from search.plan import Outcome
from search.report.analysis import (
    CONFIRMED,
    ENDS,
    compares,
    held_out,
    leaderboard,
    paired_by_scene,
    short_label,
)
from search.report.data import NOT_KNOWN, Heading, Run, Table, TableRow, interval, number, words
from search.report.figures import pictures_of

from . import sections
from .layout import DrawnPicture, Section, draw_picture, html

SCENES_OF = ("scene.", "evaluation.")
"""Settings that decide what the held-out scenes are."""


def comparison(run: Run, other: Run) -> bytes:
    """Return the page of two runs."""
    runs = (run, other)
    return html(
        title=f"{run.name} and {other.name}",
        subtitle="Two searches side by side",
        lead=[*(f"{each.name}: {sections.state(each)}" for each in runs), winners(run, other)],
        notes=[f"{each.name}: {note}" for each in runs for note in each.notes],
        sections=(
            Section("numbers", "Numbers", tables=[_numbers(run, other)]),
            _plans(run, other),
            Section("figures", "Figures", figures=_figures(run, other)),
        ),
    )


def winners(run: Run, other: Run) -> str:
    """Return a sentence that compares the best trials of two runs, paired by scene, or says why
    they cannot be compared."""
    for each in (run, other):
        if each.best is None:
            return f"The winners cannot be compared: no trial of {each.name} completed."
    unlike = [name for name in _differing(run, other, "fixed") if name.startswith(SCENES_OF)]
    if unlike:
        return (
            "The winners cannot be compared scene by scene: the runs have other scenes "
            f"({', '.join(unlike)})."
        )
    found = paired_by_scene(held_out(run, "network"), held_out(other, "network"))
    if found is None:
        return "The winners cannot be compared: they share fewer than two scored scenes."
    if found.low == found.high == 0:
        return "The winners cannot be told apart: they score the same on every scene."
    return (
        f"The best trial of {run.name} ({run.best}) {compares(found)} that of {other.name} "
        f"({other.best}): capped error {found}, paired over {found.n} held-out scenes (95 % t "
        "interval)."
    )


def _numbers(run: Run, other: Run) -> Table:
    runs = (run, other)
    boards = [leaderboard.board(each).set_index("name") for each in runs]
    bests = [board.reindex([each.best]).iloc[0] for each, board in zip(runs, boards, strict=True)]
    tallies = [leaderboard.tally(each) for each in runs]
    outcomes = [outcome for outcome in Outcome if any(outcome in tally for tally in tallies)]
    lines = {
        "trials ended": [number(len(each.trials), 0) for each in runs],
        **{f"trials {o}": [number(tally.get(o, 0), 0) for tally in tallies] for o in outcomes},
        "training time [h]": [number(r.trials["seconds"].sum() / 3600, 2) for r in runs],
        "best trial": [words(each.best or NOT_KNOWN) for each in runs],
        "its search value": [number(best["objective"]) for best in bests],
        "its held-out error": [interval(best[list(ENDS)]) for best in bests],
        "its confirmed error": [interval(best[list(CONFIRMED)]) for best in bests],
        "its RMSPE [°]": [number(best["rmspe_deg"], 2) for best in bests],
    }
    shared = [board.loc[board["trial_id"].isna(), list(ENDS)] for board in boards]
    for name in dict.fromkeys([*shared[0].index, *shared[1].index]):
        cells = [interval(ends.reindex([name]).iloc[0]) for ends in shared]
        lines[f"{short_label(name)}: held-out error"] = cells
    columns = (Heading(""), Heading(run.name, "number"), Heading(other.name, "number"))
    rows = tuple(TableRow((words(name), *cells)) for name, cells in lines.items())
    return Table("numbers-table", columns, rows)


def _plans(run: Run, other: Run) -> Section:
    """Return settings and ranges in which the two plans differ."""
    planned = {p: (run.planned(p), other.planned(p)) for p in ("search", "fixed", "space")}
    rows = [
        TableRow((words(name), *(words(sections.plain(p.get(name))) for p in plans)))
        for part, plans in planned.items()
        for name in _differing(run, other, part)
        if name not in ("name", "out")
    ]
    if not rows:
        return Section("plans", "Plans", ["The two runs have the same plan."])
    columns = (Heading("setting"), Heading(run.name, "code"), Heading(other.name, "code"))
    table = Table("plans-table", columns, tuple(rows), note="Only what differs is shown.")
    return Section("plans", "Plans", tables=[table])


def _differing(run: Run, other: Run, part: str) -> list[str]:
    one, two = run.planned(part), other.planned(part)
    return [name for name in sorted({*one, *two}) if one.get(name) != two.get(name)]


def _figures(run: Run, other: Run) -> list[tuple[DrawnPicture, ...]]:
    sides = [(each, {p.name: p for p in pictures_of(each)}) for each in (run, other)]
    titles = {name: picture.title for _, side in reversed(sides) for name, picture in side.items()}
    order = dict.fromkeys(name for _, side in sides for name in side)
    return [
        tuple(
            draw_picture(each, side[name])
            if name in side
            else DrawnPicture(each.name, titles[name], reason=f"{each.name} has no such figure.")
            for each, side in sides
        )
        for name in order
    ]
