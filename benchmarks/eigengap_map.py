"""The results of the registered experiment (docs/eigengap_map.md), from a run or a kept one.

    python benchmarks/eigengap_map.py runs/eigengap --keep      # into benchmarks/data, a few MB
    python benchmarks/eigengap_map.py [RUN]                     # prints the tables, from there
    python benchmarks/eigengap_map.py [RUN] --write             # into the page, with its figure
    python benchmarks/eigengap_map.py --unpack runs             # makes runs/eigengap from there

Of an experiment that has not ended, the seeds that all arms completed are compared, if there are
three or more, and nothing is compared otherwise, as the page says. A kept run has no weights.
Unpacked, it goes on with `python -m search.ablate --design benchmarks/eigengap.toml`: a training
that ended and was scored is found, others are trained.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from documents import write_tables
from kept_run import pack, unpack

from search.report.analysis import mean_interval
from search.report.data import Run, load
from search.report.factorial import LABELS, PRIMARY, CellEffect, effects, lost_table, sentences
from search.report.figures import write_map
from trainer.atomic import write_atomically

ROOT = Path(__file__).parents[1]
KEPT = ROOT / "benchmarks" / "data" / "eigengap_map.zip"
DOCUMENT = ROOT / "docs" / "eigengap_map.md"
FIGURE = ROOT / "docs" / "figures" / "eigengap_map.png"
LEAST_SEEDS = 3
"""Seeds that all arms have to complete, or nothing is compared."""


def complete_seeds(run: Run) -> list[int]:
    """Return the seeds of which every arm has a training that was scored or failed; an arm whose
    search found no value, since all its trainings failed, is left out."""
    plan, rows = run.planned("design"), run.tables["ablations"]
    keys = ["network", "regime", "arm"]
    arms = {(n, r, t) for n in plan["networks"] for r in plan["regimes"] for t in plan["terms"]}
    for key, own in rows[rows["seed"] == 0].groupby(keys):
        fields = plan["terms"][key[2]].values()
        tries = sum(len(values) for values in fields if isinstance(values, list))
        if own["trial_id"].nunique() == tries and not own["num_scenes"].any():
            arms.discard(key)
    found = {seed: set(own[keys].itertuples(False, None)) for seed, own in rows.groupby("seed")}
    seeds = range(1, plan["seeds"] + 1)
    return [seed for seed in seeds if arms <= found.get(seed, set())]


def compared(run: Run) -> tuple[Run, str]:
    """Return the run with the trainings that are compared, and a sentence on how many they are."""
    seeds, planned = complete_seeds(run), run.planned("design")["seeds"]
    total = run.planned("search").get("trials")
    said = f"{len(run.trials)} of {total} trainings have ended; all arms completed {len(seeds)} "
    said += f"of {planned} seeds"
    if len(seeds) == planned:
        return run, f"{said}."
    kept = seeds if len(seeds) >= LEAST_SEEDS else []
    rows = run.tables["ablations"]
    rows = rows[rows["seed"].isin([0, *kept])]
    why = "which are compared" if kept else f"fewer than {LEAST_SEEDS}, so nothing is compared"
    return replace(run, tables={**run.tables, "ablations": rows}), f"{said}, {why}."


def matrix(cells: Iterable[CellEffect], text: Callable[[CellEffect], str]) -> str:
    """Return a table with a row for each network and regime and a column for each term."""
    found = {(one.network, one.regime, one.term): text(one) for one in cells}
    terms = list(dict.fromkeys(term for *_, term in found))
    lines = ["| network | regime | " + " | ".join(terms) + " |", "|---" * (len(terms) + 2) + "|"]
    for network, regime in dict.fromkeys(key[:2] for key in found):
        own = [found.get((network, regime, term), "") for term in terms]
        lines.append(f"| {network} | {regime} | " + " | ".join(own) + " |")
    return "\n".join(lines)


def judged(one: CellEffect) -> str:
    """Return a difference, with its verdict if it has one that says something."""
    said = "" if one.verdict in ("", "not known") else f" **{one.verdict}**"
    return f"{one.difference}{said}"


def maps(run: Run, outcomes: Iterable[str]) -> str:
    """Return the effects on each of these outcomes."""
    found = effects(run)
    return "\n\n".join(
        f"*{LABELS[name]}*, with - without [95 %, of this cell alone]:\n\n{matrix(own, judged)}"
        for name in outcomes
        if (own := [one for one in found if one.outcome == name])
    )


def levels(run: Run) -> str:
    """Return the capped error of the arms without a term, by network and regime."""
    plan, rows = run.planned("design"), run.tables["ablations"]
    rows = rows[(rows["arm"] == "none") & (rows["seed"] > 0) & rows["rule"].isna()]
    rows = rows[rows["evaluation_seed"] == plan["scene_seed"]]
    lines = ["| network | " + " | ".join(plan["regimes"]) + " |"]
    lines.append("|---" * (len(plan["regimes"]) + 1) + "|")
    for network in plan["networks"]:
        own = rows[rows["network"] == network]
        cells = [
            average(own[own["regime"] == regime].groupby("seed")["capped_error"].mean(), digits=3)
            for regime in plan["regimes"]
        ]
        lines.append(f"| {network} | {' | '.join(cells)} |")
    return "\n".join(lines)


def by_snr(run: Run) -> str:
    """Return the differences between SNRs, and both SNRs of what helps or hurts."""
    found = [one for one in effects(run) if one.outcome in PRIMARY]
    parts = [
        f"*{LABELS[name]}*, effect at the highest minus that at the lowest SNR [95 %]:\n\n"
        + matrix(own, lambda one: str(one.interaction))
        for name in PRIMARY
        if (own := [one for one in found if one.outcome == name])
    ]
    clear = [one for one in found if one.verdict in ("helps", "hurts")]
    if clear:
        snrs = list(clear[0].by_snr)
        head = ["outcome", "network", "regime", "term", "verdict"]
        head += [f"{snr:g} dB" for snr in snrs]
        lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
        for one in clear:
            cells = [LABELS[one.outcome], one.network, one.regime, one.term, one.verdict]
            cells += [str(one.by_snr[snr]) for snr in snrs]
            lines.append("| " + " | ".join(cells) + " |")
        parts.append("Where a term helps or hurts, by SNR:\n\n" + "\n".join(lines))
    return "\n\n".join(parts)


def lost(run: Run) -> str:
    """Return the trainings that did not complete, by network and term."""
    return lost_table(run).text(markdown=True)


def costs(run: Run) -> str:
    """Return the mean time of a completed training by network and term."""
    arms = run.tables["ablations"].drop_duplicates("trial_id")[["trial_id", "network", "arm"]]
    rows = run.completed.merge(arms, on="trial_id")
    networks, terms = (list(run.planned("design")[name]) for name in ("networks", "terms"))
    lines = ["| network | " + " | ".join((*terms, "all")) + " |"]
    lines.append("|---" * (len(terms) + 2) + "|")
    for network in networks:
        own = rows[rows["network"] == network]
        groups = [own[own["arm"] == term] for term in terms]
        cells = [average(group["seconds"], digits=1) for group in (*groups, own)]
        lines.append(f"| {network} | " + " | ".join(cells) + " |")
    epochs = ", ".join(f"{n:g}" for n in sorted(rows["epochs"].unique()))
    about = (
        "Mean wall-clock seconds of a completed training, validation included, on a worker with "
        "one thread [95 %, t interval over trainings], number of trainings in parentheses. CPU "
        f"time is at most that. {len(rows)} trainings of {epochs} epochs, together "
        f"{rows['seconds'].sum() / 3600:.2f} h of a worker; scores and Ray are not in it."
    )
    return "\n".join([*lines, "", about])


def average(values: Iterable[float], *, digits: int) -> str:
    """Return a mean with its interval and number."""
    known = list(values)
    if len(known) < 2:
        return ", ".join(f"{value:.{digits}f}" for value in known)
    d = mean_interval(known)
    return f"{d.mean:.{digits}f} [{d.low:.{digits}f}, {d.high:.{digits}f}] ({d.n})"


def tables(run: Run) -> dict[str, str]:
    """Return the tables of the page by the names of their places."""
    own, state = compared(run)
    described = [name for name in LABELS if name not in PRIMARY]
    return {
        "map control": "\n".join(f"- {line}" for line in (state, *sentences(own))),
        "map": maps(own, PRIMARY),
        "map levels": levels(own),
        "map described": maps(own, described),
        "map by snr": by_snr(own),
        "map lost": lost(run),
        "map costs": costs(run),
    }


def write(run: Run, document: Path, figure: Path) -> None:
    """Put the tables into the page, and draw its figure beside it if there is anything to show."""
    found = tables(run)
    if write_map(compared(run)[0], figure):
        link = figure.relative_to(document.parent)
        found["map"] += f"\n\n![Effect of every term in each network and regime]({link})"
    write_tables(document, found)


def main() -> None:
    """Print or write the tables, keep a run or unpack one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, nargs="?", default=KEPT, help="folder or kept file")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--write", action="store_true", help=f"into {DOCUMENT.name}, with a figure")
    what.add_argument(
        "--keep", type=Path, nargs="?", const=KEPT, metavar="FILE", help=f"pack into {KEPT.name}"
    )
    what.add_argument("--unpack", type=Path, metavar="OUT", help="folder of runs")
    args = parser.parse_args()
    if args.keep:
        content = pack(args.run)
        write_atomically(args.keep, content)
        print(f"{args.keep}: {len(content) / 1e6:.2f} MB")
    elif args.unpack:
        print(unpack(args.run, args.unpack))
    else:
        with tempfile.TemporaryDirectory() as folder:
            run = load(args.run if args.run.is_dir() else unpack(args.run, Path(folder)))
            print("\n\n".join(f"{name}\n\n{text}" for name, text in tables(run).items()))
            if args.write:
                write(run, DOCUMENT, FIGURE)


if __name__ == "__main__":
    main()
