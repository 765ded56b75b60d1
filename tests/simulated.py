"""Experiments of five configurations by five seeds whose truth is known, to hold intervals to.

Every number is a difference of capped errors, as an ablation takes them; the true mean is 0.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from search.report.analysis.statistics import crossed_moments

Array = NDArray[np.float64]


def trainings(
    config: float,
    seed: float,
    scene: float,
    rest: float,
    *,
    repetitions: int = 4000,
    scenes: int = 64,
) -> Array:
    """[repetitions, 5 configurations, scenes], means over 5 seeds, of true mean 0.

    Args:
        config, seed: standard deviations between configurations, and between seeds of one.
        scene: of what all trainings have in common on `scenes` scenes, as a mean over them.
        rest: of what one training has on its own scenes, as a mean over them.
    """
    rng = np.random.default_rng(11)
    own = config * rng.standard_normal((repetitions, 5, 1))
    own = own + seed * rng.standard_normal((repetitions, 5, 5)).mean(-1, keepdims=True)
    common = scene * np.sqrt(scenes) * rng.standard_normal((repetitions, 1, scenes))
    noise = rest * np.sqrt(scenes / 5) * rng.standard_normal((repetitions, 5, scenes))
    return own + common + noise


def ends(values: Array) -> tuple[Array, Array]:
    """Lower and upper ends of the crossed 95 % intervals."""
    mean, error, freedom = crossed_moments(values)
    reach = stats.t.ppf(0.975, freedom) * error
    return mean - reach, mean + reach


RATIOS = [
    (
        0.004,
        0.010,
        0.002,
        0.004,
    ),  # a scene differs by .1, 2,048 of them by .002; seeds outweigh it
    (0.010, 0.010, 0.002, 0.004),  # configurations differ
    (0.000, 0.010, 0.002, 0.004),  # only seeds do
    (0.004, 0.010, 0.010, 0.004),  # few scenes
    (0.000, 0.004, 0.010, 0.010),  # very few
    (0.010, 0.000, 0.000, 0.000),  # scenes without doubt: t on five numbers
    (0.000, 0.000, 0.010, 0.000),  # scenes with all of it
]
