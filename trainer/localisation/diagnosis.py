"""The findings of a localisation in words: scenes that do not fit and why, confidence withheld."""

from collections import Counter

import torch

from trainer.config import SceneConfig
from trainer.scenes import Scenes

from .best_places import too_many
from .conventions import conventions, likely_convention
from .localisation import Localisation


def describe_misfits(found: Localisation, scenes: Scenes, scene: SceneConfig) -> str:
    """Return what is to be said about scenes that do not fit and the likely misreading; or "".

    Every usual misreading is tried if more scenes do not fit than chance explains.
    """
    size = len(found.fits)
    untested = int((found.p_value != found.p_value).sum())
    misfits = size - int(found.fits.sum()) - untested
    said = []
    if untested:
        said.append(f"the fit of {untested} of {size} scenes cannot be tested.")
    if misfits:
        said.append(f"{misfits} of {size} scenes do not fit (p < .01).")
    if too_many(misfits, size):
        tried = conventions(scenes, torch.from_numpy(found.num_sources), scene)
        likely = likely_convention(tried)
        said.append(
            f"With {likely.name} {likely.fitting} of {likely.of} tried fit: {likely.remedy}."
            if likely
            else "None of the usual misreadings explains them: see docs/localisation.md."
        )
    return " ".join(said)


def withheld_line(found: Localisation) -> str:
    """Return a line that counts the estimates without confidence by their reason; "" if none."""
    counts = Counter(reason for reason in found.reason[found.active].tolist() if reason)
    listed = ", ".join(f"{count}: {reason}" for reason, count in counts.most_common())
    return (
        f"no confidence for {counts.total()} of {found.active.sum()} ({listed})" if counts else ""
    )
