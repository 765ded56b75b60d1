"""`python -m search.localise`: the sources of recorded scenes, as a Parquet table.

One row per estimate; the same numbers as `python -m trainer localise` writes as arrays.

    scene        int    place in the recording, from 0
    source       int    among the estimates of the scene, from 0
    azimuth, elevation  rad; null where the panel cannot tell them
    range_m      m; null where the snapshots do not tell it, or it is at an end of the region
    azimuth_std, elevation_std, range_std_m  rad, rad, m: standard deviations; null at an edge, too
    range_low_m, range_high_m  m: 95 % interval of the range; null where the range is;
                 the upper end is infinite where 1/range may be 0
    far          bool   whether the range is too far to be told
    confidence   probability of lying within 5° and 5° of a source, given that the scene is of the
                 law; null where it is withheld
    reason       string, why it is withheld; "" where it is not
    resolved     bool   whether it stands out from noise (`trainer.estimation.estimates`)
    num_sources  int    K of the scene, as given or as estimated
    explained    share of the scene's energy that its best places explain
    p_value      of the scene's goodness of fit; null where it cannot be tested
    fits         bool   p_value >= .01
    credible_radius  rad: angle around the estimate that holds its source with probability .95
    expected_error   expected capped error of the scene's estimates, if K is right
    effective_points what the draws of the posterior are worth
    num_sources_probability  probability of `num_sources`; 1 if it was told. These four are null
                 without `--readout posterior` or `--method posterior`
    resampled    bool   whether the posterior was sampled again with more points
    origin       string, where the scene's places are from: the covariance, scoring from there, or
                 another search of the likelihood; "" unless a model judged them
    better_reading   string, the usual misreading in which the recording is explained better; ""
                 if none is

Exit codes: 0 done, 2 bad usage, 130 interrupted. Ray is not needed.
"""

import argparse
import sys
from collections.abc import Sequence

import pandas as pd

from search.plan import run_command
from trainer.atomic import write_output
from trainer.cli import OneLineParser, add_localise_flags, localise_arguments
from trainer.config import require

PLACES = ("azimuth", "elevation", "range_m")
STDS = ("azimuth_std", "elevation_std", "range_std_m")
COLUMNS = (
    *PLACES,
    *STDS,
    "range_low_m",
    "range_high_m",
    "far",
    "confidence",
    "reason",
    "resolved",
    "credible_radius",
)
SCENE_COLUMNS = (
    "num_sources",
    "explained",
    "p_value",
    "fits",
    "origin",
    "better_reading",
    "expected_error",
    "effective_points",
    "resampled",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    p = OneLineParser(prog="python -m search.localise", description=__doc__.splitlines()[0])
    add_localise_flags(p)
    return run_command(p, run, argv)


def run(args: argparse.Namespace) -> int:
    """Localise the sources of a recording and write one row per estimate."""
    require(args.out.suffix == ".parquet", "--out ends in .parquet", f"{args.out}", "Rename.")
    from trainer.localisation import localise, withheld_line
    from trainer.scenes import origin_note

    found = localise(**localise_arguments(args))
    scene, source = found.active.nonzero()
    columns = {name: found.arrays()[name][scene, source] for name in COLUMNS}
    columns |= {name: found.arrays()[name][scene] for name in SCENE_COLUMNS}
    columns["num_sources_probability"] = found.probabilities[scene, found.num_sources[scene]]
    rows = pd.DataFrame({"scene": scene, "source": source, **columns})
    write_output(args.out, rows.to_parquet(index=False), "--out")
    print(f"wrote {args.out}: {len(rows)} sources")
    lines = (
        found.origin_line(),
        found.sampling_line(),
        withheld_line(found),
        found.diagnosis,
        origin_note(args.scenes),
    )
    for line in filter(None, lines):
        print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
