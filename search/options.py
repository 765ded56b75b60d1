"""The command line of `python -m search.run`: its flags, what they mean, and near misses."""

from __future__ import annotations

import argparse

import spaces
from trainer.arguments import OneLineParser

from .config import OBJECTIVES, SAMPLERS, SCHEDULERS


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = OneLineParser(
        prog="python -m search.run",
        description="Searches the hyperparameters of RIS covariance learning with Ray Tune and "
        "Optuna, and writes Parquet tables to OUT/NAME.",
        epilog="Exit codes: 0 done, 1 the search failed, 2 bad usage, 130 interrupted.",
        allow_abbrev=False,
    )
    presets = "; ".join(
        f"{s.name}: {s.about[0].lower()}{s.about[1:]}" for s in spaces.PRESETS.values()
    )
    p.add_argument("--preset", metavar="PRESET", help=f"default local. {presets}")
    p.add_argument("--trials", type=int, metavar="N", help="how many; default: the preset's")
    p.add_argument("--name", metavar="RUN", help="of the run; default PRESET-DATE-TIME")
    p.add_argument(
        "--out",
        metavar="DIR",
        default="runs",
        help="folder of runs, or s3://bucket/prefix (gs://, ...); default runs",
    )
    p.add_argument("--seed", type=int, metavar="INT", help="of sampler and trainings; default 0")
    p.add_argument(
        "--max-concurrent",
        type=int,
        metavar="N",
        help="trials at a time; default: as many as the resources hold",
    )
    p.add_argument(
        "--cpus-per-trial", type=float, metavar="CPUS", help="default 1; fractions share a core"
    )
    p.add_argument(
        "--gpus-per-trial",
        type=float,
        metavar="GPUS",
        help="default 0.25 where there is a GPU, else 0; fractions share a GPU; 0 is the CPU",
    )
    p.add_argument(
        "--scheduler",
        metavar="|".join(SCHEDULERS),
        help="asha (default) stops weak trials at rungs, hyperband at later rungs too, median "
        "wherever they fall behind; none lets all of them finish",
    )
    p.add_argument(
        "--sampler",
        metavar="|".join(SAMPLERS),
        help="tpe (default); with random or qmc, trial i depends on the seed and i alone",
    )
    p.add_argument(
        "--objectives",
        metavar=",".join(OBJECTIVES),
        help="default capped_error; with cost (seconds per epoch) too, the report has the Pareto "
        "front",
    )
    p.add_argument(
        "--trial-timeout",
        type=float,
        metavar="SECONDS",
        dest="trial_timeout_s",
        help="a trial that reports nothing for so long is ended; default 1800",
    )
    p.add_argument(
        "--warm-start",
        metavar="RUN",
        help="tell the sampler the trials of an earlier run of the same space first",
    )
    p.add_argument(
        "--address",
        metavar="ADDRESS",
        help="of a Ray cluster, auto on one; default: a local Ray",
    )
    p.add_argument(
        "--resume",
        metavar="RUN",
        help="continue a run (name under --out, or path): finished trials are kept, unfinished "
        "ones go on from their checkpoints; needs no other flag, --trials N extends it",
    )
    p.add_argument(
        "--attach",
        metavar="RUN",
        help="follow a search that another process drives, and exit as it does",
    )
    p.add_argument(
        "--accept-space-change",
        action="store_true",
        help="resume although the space is not the one that the run began with",
    )
    p.add_argument(
        "--no-preflight",
        action="store_true",
        help="skip the checks of storage, eigendecompositions and, in long plans, networks",
    )
    p.add_argument(
        "--dry-run",
        action="store_true",
        help="print the plan and ten sampled configurations; start nothing",
    )
    return p
