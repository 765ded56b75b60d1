"""Tables and a figure of what the ablations of a run found, for docs/eigengap.md.

    python benchmarks/eigengap_ablation.py RUN [--no-write]

Reads RUN alone (no Ray, no torch); `eigengap_ablation.sh` makes it. What stands between the
markers `ablation` and `confirmed` of docs/eigengap.md is replaced, and the figure
docs/eigengap_ablation.png drawn.
"""

import argparse
from pathlib import Path

import pandas as pd
from documents import write_tables

from search.report.analysis import Effect, ablation, confirmed
from search.report.data import Run, load
from search.report.figures import ablation_plot
from trainer.config import DEFINITIONS, TrainConfig

ROOT = Path(__file__).parents[1]
FIGURE = ROOT / "docs" / "eigengap_ablation.png"
DOCUMENT = ROOT / "docs" / "eigengap.md"

Found = dict[str, list[Effect]]


def definitions(run: Run, found: Found) -> str:
    """Return a table with a row per ablation: verdict, difference over the objective's SNRs, and
    at each SNR."""
    snrs = sorted({e.snr_db for own in found.values() for e in own if e.snr_db is not None})
    head = ["ablation", "did not complete: without, with", "compared", "verdict"]
    head += ["capped error, with - without", "detectable"]
    head += [f"{snr:g} dB" for snr in snrs] + ["source number"]
    rows = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for name, own in found.items():
        if not own:
            lost = ablation.incomplete(run, name)
            cells = [
                name,
                f"{lost.without}, {lost.with_} of {lost.asked}",
                "",
                "nothing to compare",
            ]
            rows.append("| " + " | ".join(cells) + " |" * (len(head) - len(cells) + 1))
            continue
        error = by_snr(own, "capped_error")
        number = by_snr(own, "source_number_found").get(None)
        lost = ablation.incomplete(run, name)
        overall = error[None]
        cells = [name, f"{lost.without}, {lost.with_} of {lost.asked}"]
        cells += [f"{overall.seeds} pairs of {overall.difference.n} configurations"]
        cells += [ablation.verdict(overall), str(overall.difference)]
        cells += [f"{overall.detectable:.3f}"]
        cells += [str(error[snr].difference) if snr in error else "" for snr in snrs]
        cells += ["" if number is None else str(number.difference)]
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join([*rows, "", about(run, found)])


def by_snr(own: list[Effect], measure: str) -> dict[float | None, Effect]:
    """Return effects on one measure by SNR; None is the mean over the objective's SNRs."""
    return {effect.snr_db: effect for effect in own if effect.measure == measure}


def about(run: Run, found: Found) -> str:
    """Return a paragraph on the configurations, scenes and intervals behind the numbers."""
    rows = run.tables["ablations"]
    kinds = configurations(run, sorted(rows["trial_id"].unique()))
    snr = ", ".join(f"{s:g}" for s in run.objective_snr_db)
    scenes = sorted({own[0].scenes for own in found.values() if own})
    config = TrainConfig.from_params(run.plan.get("fixed", {}))
    steps = config.epochs * config.steps_per_epoch
    each = " or ".join(map(str, scenes))
    return (
        f"Configurations: {kinds}, trained for {steps} steps of {config.batch_size} scenes; "
        f"{each} fresh scenes for each SNR and K; the "
        f"verdict is over SNR {snr} dB and all K. Intervals at 95 %, configurations crossed with "
        "scenes; negative is better, for the source number positive. Detectable: told from 0 with "
        "80 % probability. Pairs of which a training did not complete are left out: where there "
        "are any, the verdict is about those that live."
    )


def configurations(run: Run, trials: list[str]) -> str:
    """Return the number of trials of each kind of network, as text."""
    own = run.trials.set_index("trial_id")
    kinds = "params.network.kind"
    if kinds not in own:
        return ", ".join(trials)
    counts = own.loc[trials, kinds].value_counts()
    return ", ".join(f"{count} {kind}" for kind, count in counts.items())


def acting(run: Run) -> str:
    """Return a table of the mean term and of the share of scenes where it is above 0, by arm."""
    rows = run.tables["ablations"].dropna(subset=["hinge"])
    rows = rows[rows["snr_db"].isin(run.objective_snr_db)]
    means = rows.groupby(["ablation", "arm"])[["hinge", "hinge_active"]].mean()
    lines = ["| ablation | mean term without, with | scenes where it acts without, with |"]
    lines.append("|---" * 3 + "|")
    for name in sorted(rows["ablation"].unique(), key=in_order):
        arms = [means.loc[(name, arm)] for arm in (ablation.WITHOUT, ablation.WITH)]
        term = ", ".join(f"{arm['hinge']:.3f}" for arm in arms)
        share = ", ".join(f"{arm['hinge_active']:.0%}" for arm in arms)
        lines.append(f"| {name} | {term} | {share} |")
    return "\n".join(lines)


def finalists(run: Run) -> str:
    """Return the confirmed leaderboard as Markdown."""
    board = confirmed.confirmed_values(run)
    lines = ["| | search | confirmed [95 %] | confirmed - search |", "|---" * 4 + "|"]
    for row in board.to_dict("records"):
        ends = f"{row['confirmed']:.3f} [{row['confirmed_low']:.3f}, {row['confirmed_high']:.3f}]"
        search, curse = (
            "" if pd.isna(row[name]) else f"{row[name]:{sign}.3f}"
            for name, sign in (("search", ""), ("curse", "+"))
        )
        lines.append(f"| {row['name']} | {search} | {ends} | {curse} |")
    found = confirmed.curse(run)
    if found is not None:
        lines += ["", f"Winner's curse: {found} over {found.n} finalists."]
    return "\n".join(lines)


def in_order(name: str) -> tuple[int, str]:
    """Return a sort key: definitions as the documents have them, then the rest by name."""
    definition = name.removeprefix("eigengap-")
    known = definition in DEFINITIONS
    return (DEFINITIONS.index(definition) if known else len(DEFINITIONS)), name


def main() -> None:
    """Print everything, and write it into the document."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of the run")
    parser.add_argument("--no-write", action="store_true", help="leave the documents as they are")
    args = parser.parse_args()
    run = load(args.run)
    names = sorted(ablation.names(run), key=in_order)
    found = {name: ablation.effects(run, name) for name in names}
    if not any(found.values()):
        parser.exit(1, f"{args.run} has no ablation of two configurations or more\n")
    tables = {
        "ablation": f"{definitions(run, found)}\n\n{acting(run)}",
        "confirmed": finalists(run),
    }
    for name, table in tables.items():
        print(f"\n{name}\n\n{table}")
    figure = args.run / "report" / FIGURE.name if args.no_write else FIGURE
    ablation_plot.write(run, names, figure)
    print(f"\nfigure: {figure}")
    if not args.no_write:
        write_tables(DOCUMENT, tables)
        print(f"written into {DOCUMENT.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
