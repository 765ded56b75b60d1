"""Every figure of a report, in the order of the page: its name, title, caption and function."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from matplotlib.figure import Figure

from search.report.analysis import ablation, rungs
from search.report.data import Run
from search.report.factorial import is_design

from . import ablation_plot, atlas, choices, factorial_map, pareto, pictures, plots, progress


@dataclass(frozen=True)
class Picture:
    """A figure: `name` of its files, title, caption (content, source of the data, how to read it),
    and a function that draws it or says why there is none."""

    name: str
    title: str
    caption: str
    draw: Callable[[Run], Figure | str]


OF_SCENES = ("error_vs_snr", "above_crb", "backends", "spectra", "pseudospectra")
"""Figures of trials that score scenes."""


OF_TRAININGS = ("learning_curves", "failure_atlas")
"""Figures that a design has, too: its trainings are not compared as trials of a search."""


def pictures_of(run: Run) -> Iterator[Picture]:
    """Yield all figures that a run may have."""
    if is_design(run):
        yield Picture(
            "map",
            "What each term does",
            "Difference of the means with and without a term, of the same training seeds and "
            "scenes; 95 % intervals of a field alone. Colours are verdicts of the whole family: "
            "equivalent is a difference within the margin.",
            factorial_map.draw_map,
        )
    for picture in _pictures(run):
        if is_design(run) and picture.name not in OF_TRAININGS:
            continue
        if not (run.own_trainer and picture.name in OF_SCENES):
            yield picture


def _pictures(run: Run) -> Iterator[Picture]:
    """Yield all figures of a run; one error figure per number of sources."""
    for count in plots.numbers_of_sources(run):
        yield Picture(
            f"error_vs_snr_k{count}",
            f"Error against SNR, K = {count}",
            "Held-out scenes. Left: mean of min(error, 10°) / 10°, bands are 95 % intervals. "
            "Right: RMSPE on a logarithmic axis. Grey columns are the SNRs of the objective "
            f"({run.objective_snrs} dB); elsewhere the network was not selected. The bound holds "
            "for unbiased estimators: below threshold, where errors are capped by the region, a "
            "biased one may lie beneath it. √CRB is a root mean square, and the mean error of an "
            "estimator that reaches it is up to a fifth smaller, so on the left it may lie "
            "beneath it anywhere. `MUSIC alone` is what the search minimises; `refined` is what "
            "`localise` returns: places sharpened, or searched again, where the likelihood is to "
            f"be trusted. At most {plots.MOST_LINES} lines; the leaderboard has the others.",
            partial(plots.draw_errors, counts=(count,)),
        )
    if not plots.numbers_of_sources(run):
        yield Picture("error_vs_snr", "Error against SNR", "", plots.draw_errors)
    yield Picture(
        "above_crb",
        "Decibels above the Cramér-Rao bound",
        "20 log10 of root mean square error over √CRB, both capped at 10° per source so that no "
        "single near-singular scene decides. 0 dB is the bound.",
        plots.draw_above_crb,
    )
    if ablation.names(run):
        yield Picture(
            "ablations",
            "With and without",
            "Effect of an ablation against SNR: the same configurations, training seeds and "
            "scenes with and without, 95 % intervals. Below zero the error is smaller with it.",
            ablation_plot.draw_ablations,
        )
    yield Picture(
        "history",
        "Optimisation history",
        f"{run.objective_label.capitalize()} of every trial, mean over its last epochs. Filled: "
        "all epochs trained. Hollow: stopped early, so of lower fidelity."
        + ("" if run.own_trainer else " The dashed line is classical MUSIC on held-out scenes."),
        progress.draw_history,
    )
    yield Picture(
        "pareto",
        "Error against cost",
        "Completed trials. On the front no trial is beaten in both; at its cheap end a little "
        "more error saves much time. Cost is wall-clock time in training on the machine that the "
        "trial had.",
        pareto.draw_front,
    )
    cut = "Vertical dashes are the rungs at which the scheduler stops the weaker ones; "
    yield Picture(
        "learning_curves",
        "Learning curves and rungs",
        f"One line per trial. {cut if rungs(run) else 'The scheduler has no rungs; '}"
        "a circle ends a stopped trial, a cross one that failed.",
        progress.draw_learning_curves,
    )
    yield Picture(
        "parallel_coordinates",
        "Parameters of every trial",
        "Each line is a trial. Axes with small numbers at their ends are ranges (logarithmic "
        "where the space is); `absent` is a parameter the trial did not have. Dotted red lines "
        "failed. The thick line is the best trial.",
        choices.draw_parallel_coordinates,
    )
    yield Picture(
        "importances",
        "Which parameters mattered",
        "PED-ANOVA (Optuna) over objectives at one common epoch, so that fidelities are not "
        "mixed: it tells the best quarter of trials from the rest. A bar in colour passes its red "
        "mark, the 95 % quantile under shuffled objectives; of parameters without effect, one in "
        "twenty does.",
        choices.draw_importances,
    )
    of_trials = (
        Picture(
            "backends",
            "Spectral backends",
            "Each dot is a trial. Not a paired comparison: trials of different backends differ in "
            "other parameters too, and `gram` goes with the factor network only.",
            choices.draw_backends,
        ),
        Picture(
            "failure_atlas",
            "Failure atlas",
            "Above: failed trials by cause, backend and loss term. Below: along each parameter, "
            "the share of trials that failed with its 95 % interval; dots are the failed trials, "
            "ticks those that ended well.",
            atlas.draw_failure_atlas,
        ),
    )
    yield from of_trials
    for picture in of_trials if run.reruns else ():
        yield Picture(
            f"{picture.name}_reruns",
            f"{picture.title}, reruns",
            f"The trainings of confirmations and ablations. {picture.caption}",
            partial(_of_reruns, draw=picture.draw),
        )
    yield Picture(
        "spectra",
        "Eigenvalues before and after training",
        "Median over 64 held-out scenes, band from the 10 % to the 90 % quantile; trace-1 R, "
        "loading excluded. The grey column is the gap from eigenvalue K to K+1. Best trial.",
        pictures.draw_spectra,
    )
    where = pictures.scene_of(run)
    yield Picture(
        "pseudospectra",
        "One scene, classical and learned",
        "MUSIC pseudospectrum, the highest over all ranges"
        + (f"; {where}. The first of the held-out scenes, not a chosen one." if where else "."),
        pictures.draw_pseudospectra,
    )


def _of_reruns(run: Run, draw: Callable[[Run], Figure | str]) -> Figure | str:
    """Draw the same figure of the reruns, which are a run of their own."""
    assert run.reruns is not None, "only drawn where there are reruns"
    return draw(run.reruns)
