"""Networks on panels they were not trained on, with the same weights.

    python benchmarks/transfer.py [--network unrolled:2] [--seeds 0 1 2] [--scenes 256]
                                  [--regions] [--write]

Networks trained by `accuracy.py` on the 6x6 panel (they are trained here if they are not there
yet) localise on others, with other numbers of antennas and snapshots and in other regions, next to
the classical methods on the same scenes; K is told. With --regions, panels and regions that need
other range planes than the weights have, to which maps are interpolated. A scene is the unit of
chance, as there. With --write the tables, as printed, go into docs/network.md, with the command
that made them.
"""

import argparse
import shlex
import sys
from dataclasses import replace

from trained import config_of, scores, trained  # isort: skip  (sets threads)

import torch
from documents import write_tables
from paired import DOCUMENT, add_flags, difference, everywhere, mean_of, shown

from trainer.config import SceneConfig
from trainer.estimation import SCORING_SUFFIX, with_fisher_scoring
from trainer.evaluation import Conditions, classical_estimator, network_estimator
from trainer.intervals import bootstrap_mean
from trainer.localisation import adapt_network

PANELS = {
    "6x6, 12 antennas, 16 snapshots, as trained": {},
    "8x4, 8 antennas, 24 snapshots": {
        "num_horizontal": 8,
        "num_vertical": 4,
        "num_antennas": 8,
        "num_snapshots": 24,
    },
    "12x12, 16 antennas, 16 snapshots, 2 to 10 m, up to 3 sources": {
        "num_horizontal": 12,
        "num_vertical": 12,
        "num_antennas": 16,
        "range_min_m": 2.0,
        "range_max_m": 10.0,
        "max_sources": 3,
    },
}
REGIONS = {
    "6x6, 0.3 to 10 m, 6 range planes": {"range_min_m": 0.3, "range_max_m": 10.0},
    "12x12, 16 antennas, 16 snapshots, 0.5 to 10 m, up to 3 sources, 15 range planes": {
        "num_horizontal": 12,
        "num_vertical": 12,
        "num_antennas": 16,
        "range_max_m": 10.0,
        "max_sources": 3,
    },
}
FRESH_SEED = 7_000_003
"""Of the scenes: not one of `EvaluationConfig`."""
SNR_DB = (-10.0, -5.0, 0.0, 5.0)
OBJECTIVE_SNR_DB = (-5.0, 0.0)
CLASSICAL = ("sml", "lmmse_beamformer", "lmmse_music", "pinv_music")


def main() -> None:
    """Train on one panel and print the errors on the others."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_flags(parser, epochs=30, scenes=256)
    parser.add_argument(
        "--regions", action="store_true", help="those that need other range planes than 4"
    )
    parser.add_argument("--write", action="store_true", help=f"the tables into {DOCUMENT}")
    args = parser.parse_args()
    torch.set_num_threads(1)
    written = [f"`python benchmarks/transfer.py {shlex.join(sys.argv[1:])}`"]
    for about, change in (REGIONS if args.regions else PANELS).items():
        rows = {}
        for seed in args.seeds:
            config = config_of("local", args.network, seed, args.epochs, "cpu")
            network, _ = trained(config, "cpu")
            scene: SceneConfig = replace(config.scene, **change)
            moved = adapt_network(network, config, scene)
            music = network_estimator(moved, scene)
            conditions = Conditions(scene, FRESH_SEED, SNR_DB, args.scenes)
            rows.setdefault("network", []).append(scores(config.digest, music, conditions))
            sharper = with_fisher_scoring(lambda s, _, locate=music: locate(s), scene)
            rows.setdefault(f"network{SCORING_SUFFIX}", []).append(
                scores(
                    f"{config.digest}{SCORING_SUFFIX}",
                    lambda s, locate=sharper: locate(s, s.sources.num_sources),
                    conditions,
                )
            )
        for name in CLASSICAL:
            rows[name] = [scores(name, classical_estimator(name, scene), conditions)]
        means = {name: mean_of(parts) for name, parts in rows.items()}
        count = f"{args.scenes} scenes for each of {len(conditions.points())} conditions"
        lines = [f"**{about}; {count}**", ""]
        heads = ["estimator", "capped error -5, 0 dB", "network+scoring - it"]
        heads += [f"success {snr:g} dB" for snr in SNR_DB] + ["ms/scene"]
        lines += ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
        best = means[f"network{SCORING_SUFFIX}"]
        for name, mine in means.items():
            error = bootstrap_mean(mine.per_scene("capped_error", OBJECTIVE_SNR_DB))
            gap = "" if mine is best else shown(difference(best, mine, OBJECTIVE_SNR_DB), "+")
            found = (bootstrap_mean(mine.per_scene("success", (snr,))) for snr in SNR_DB)
            cells = " | ".join([shown(error), gap, *(f"{each.mean:.3f}" for each in found)])
            lines.append(f"| {name} | {cells} | {float(mine.milliseconds):.2f} |")
        print("\n" + "\n".join(lines), flush=True)
        written += ["", *lines]
        shorter = {name: means[name] for name in (*CLASSICAL, f"network{SCORING_SUFFIX}")}
        print(f"\n{everywhere(shorter, conditions)}", flush=True)
    if args.write:
        name = "transfer to regions" if args.regions else "transfer"
        write_tables(DOCUMENT, {name: "\n".join(written)})


if __name__ == "__main__":
    main()
