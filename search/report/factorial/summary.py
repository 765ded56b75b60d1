"""The map of a design in words and tables: verdicts, interaction with SNR, control, losses."""

from collections import Counter

from scipy import stats

from search.report.data import Cell, Heading, Run, Table, TableRow, interval, number, words

from .effects import PRIMARY, SECONDARY, CellEffect, arms_of, effects
from .family import LEVEL

LABELS = {name: one.label for name, one in (PRIMARY | SECONDARY).items()}


def sentences(run: Run) -> list[str]:
    """Return how far the design is, the number of verdicts of each kind, and the control."""
    found, plan = effects(run), run.planned("design")
    primary = [one for one in found if one.outcome in PRIMARY]
    arms = len(list(arms_of(run)))
    cells = (arms - arms // len(plan["terms"])) * len(PRIMARY)
    margins = ", ".join(f"{LABELS[n]} {margin:g}" for n, margin in plan["margins"].items())
    said = Counter(one.verdict for one in primary)
    counts = ", ".join(f"{n} {word}" for word, n in sorted(said.items())) or "none yet"
    state = (
        f"Design {plan['sha256'][:12]}...: {len(primary)} of {cells} cells have two pairs of "
        f"trainings or more. Verdicts: {counts}."
    )
    family = (
        f"One family of {2 * len(primary)} tests (no difference; a difference beyond the margin: "
        f"{margins}), adjusted by Holm's method to {LEVEL:.0%}. Intervals are 95 % of a cell "
        "alone; training seeds and scenes are both random."
    )
    return [state, family, *_control(run, found)]


def _control(run: Run, found: list[CellEffect]) -> list[str]:
    """Return whether the gain that the design has to see is there, by the best rule and by MDL."""
    control = run.planned("design").get("control") or {}
    told = []
    for outcome in ("source_number_accuracy", "source_number_accuracy_mdl") if control else ():
        cells = [
            one
            for one in found
            if one.outcome == outcome
            and one.network in control["networks"]
            and one.term in control["terms"]
        ]
        if not cells:
            continue
        best = max(cells, key=lambda one: one.difference.mean)
        met = best.difference.mean >= control["gain"] and lower_end(best, len(cells)) > 0
        told.append(
            f"Control, a gain of {control['gain']:g} in {LABELS[outcome]}: "
            f"{'seen' if met else 'not seen'}. The largest of {len(cells)} cells is "
            f"{best.difference} ({best.term}, {best.network}, {best.regime})."
        )
    return told


def lower_end(one: CellEffect, looks: int) -> float:
    """Return the lower end of a cell's interval at 95 % over so many looks, by Bonferroni's
    inequality."""
    mean, low = one.difference.mean, one.difference.low
    once, widened = (stats.t.ppf(1 - 0.025 / n, one.freedom) for n in (1, looks))
    return float(mean - widened / once * (mean - low))


def map_tables(run: Run) -> list[Table]:
    """Return the map of each outcome, the interaction with SNR, and the trainings that ended
    early."""
    found = effects(run)
    maps = [
        _map(outcome, cells)
        for outcome in LABELS
        if (cells := [one for one in found if one.outcome == outcome])
    ]
    primary = [one for one in found if one.outcome in PRIMARY]
    return [*maps, *([_by_snr(primary)] if primary else []), lost_table(run)]


def _where(one: CellEffect) -> tuple[Cell, ...]:
    return words(one.term), words(one.network), words(one.regime)


WHERE = tuple(map(Heading, ("term", "network", "regime")))


def _map(outcome: str, cells: list[CellEffect]) -> Table:
    columns = (
        *WHERE,
        Heading("without", "number"),
        Heading("with", "number"),
        Heading("difference [95 %]", "number", "with minus without, of this cell alone"),
        Heading("verdict", "", "of the whole family"),
        Heading("rules for K", "", "without, with"),
        Heading("seeds", "number"),
        Heading("scenes", "number", "for each SNR and K"),
    )
    rows = []
    for one in cells:
        d = one.difference
        cell = (
            *_where(one),
            number(one.without),
            number(one.with_),
            interval((d.mean, d.low, d.high), sign="+"),
            words(one.verdict),
            words("" if outcome == "capped_error" else ", ".join(one.rules)),
            number(d.n, 0),
            number(one.scenes, 0),
        )
        rows.append(TableRow(cell))
    tested = "" if outcome in PRIMARY else ", not tested"
    return Table(f"map-{outcome}", columns, tuple(rows), title=f"{LABELS[outcome]}{tested}")


def _by_snr(cells: list[CellEffect]) -> Table:
    snrs = sorted({snr for one in cells for snr in one.by_snr})
    columns = (
        Heading("outcome"),
        *WHERE,
        *(Heading(f"{snr:g} dB", "number", "difference [95 %]") for snr in snrs),
        Heading("highest - lowest SNR", "number", "[95 %], of this cell alone"),
    )
    rows = []
    for one in cells:
        at = [one.by_snr.get(snr) for snr in snrs]
        ends = [None if d is None else (d.mean, d.low, d.high) for d in (*at, one.interaction)]
        cell = (words(LABELS[one.outcome]), *_where(one))
        own = (number(None) if each is None else interval(each, sign="+") for each in ends)
        rows.append(TableRow((*cell, *own)))
    return Table("map-snr", columns, tuple(rows), title="Effects by SNR")


def lost_table(run: Run) -> Table:
    """Return the share of trainings that did not complete, by network and term."""
    rows = run.tables["ablations"].drop_duplicates(["network", "regime", "arm", "trial_id"])
    columns = (
        *map(Heading, ("network", "term")),
        Heading("trainings", "number"),
        Heading("did not complete", "number"),
        Heading("share [95 %]", "number", "Clopper and Pearson's interval"),
    )
    made = []
    for (network, term), own in rows.groupby(["network", "arm"], sort=False):
        total, lost = len(own), int((own["num_scenes"] == 0).sum())
        ends = stats.binomtest(lost, total).proportion_ci(0.95)
        share = interval((lost / total, ends.low, ends.high))
        cells = (words(network), words(term), number(total, 0), number(lost, 0), share)
        made.append(TableRow(cells))
    return Table("map-lost", columns, tuple(made), title="Trainings that did not complete")


def map_text(run: Run) -> str:
    """Return sentences and tables, for a console or a Markdown page."""
    tables = [f"### {table.title}\n\n{table.text(markdown=True)}" for table in map_tables(run)]
    return "\n\n".join([*sentences(run), *tables])
