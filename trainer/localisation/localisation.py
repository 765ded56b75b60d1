"""The result of a localisation: arrays of all scenes."""

import dataclasses
import io
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from trainer.atomic import write_output
from trainer.posterior import PosteriorReadout


def _unread() -> NDArray[np.float32]:
    """Return the place of an array that `add_posterior` fills."""
    return np.empty(0, np.float32)


POOR = "the posterior is sampled too poorly"


@dataclass(frozen=True)
class Localisation:
    """Places of the sources of S scenes, up to K each, and what they are worth.

    Attributes:
        azimuth, elevation: [S, K] [rad]; NaN where the panel cannot tell them
            (`evaluation.identification`).
        range_m: [S, K] [m]; NaN where the snapshots do not tell it, or it lies at an end of the
            region.
        azimuth_std, elevation_std, range_std_m: [S, K] [rad, rad, m], standard deviations from the
            Fisher information, limited by the region; NaN where the coordinate is, at an edge of
            the region, and in inactive slots.
        range_low_m, range_high_m: [S, K] [m], the 95 % interval of the range; NaN where the range
            is and in inactive slots; `range_high_m` is infinite where 1/range may be 0.
        far: [S, K], the range is too far to be told.
        confidence: [S, K], probability of lying within 5° and 5° of a source
            (`evaluation.confidence`), given that the scene is of the law; 0 in inactive slots, NaN
            where it is withheld.
        reason: [S, K], why it is withheld (`vouching`); "" where it is not.
        active: [S, K], slots that hold an estimate: the first `num_sources` of a scene. The
            others hold the centre of the region.
        resolved: [S, K], estimates that stand out from noise (`estimation.estimates`), in scenes
            whose fit can be tested and that no other place explains better or nearly as well, nor
            a further source (`vouching`); the others are best guesses.
        num_sources: [S], K as given or estimated.
        explained: [S], share of the snapshots' energy that least squares at the scene's best
            places explains (`best_places`).
        p_value: [S], of the goodness of fit there; NaN where it cannot be tested.
        fits: [S], p_value >= `best_places.LEVEL`; false in all scenes of a recording that fits
            with the phase sign reversed (`vouching.withhold_reversed`).
        reversed_gain: [S], log likelihood gained with the phase sign reversed.
        sign_evidence: [S], log of the evidence for the phase sign as given over that for the
            other; NaN where `reversed_gain` alone decides (`best_places`).
        scale, scale_std: [S], factor of the elements' distances in wavelengths that fits best, and
            its standard deviation (`goodness_of_fit`); NaN where the snapshots do not tell.
        origin: [S], where the places are from, a word of `estimation.ORIGINS`; "" unless a model
            judged them by the likelihood.
        better_reading: [S], name of the usual misreading (`conventions`) in which the recording is
            explained better, the same for all its scenes; "" if none is.
        credible_radius: [S, K], angle around the estimate that holds its source with probability
            .95 [rad]; this and what follows is NaN without the readout `posterior`.
        expected_error: [S], expected capped error of the scene's estimates, if K is right.
        effective_points: [S], what the draws of the posterior are worth; NaN for K = 0.
        resampled: [S], it was sampled again with more points; false without it.
        probabilities: [S, K_max + 1], of K = 0 ... K_max; 1 for a K that was told.
        diagnosis: what is to be said about scenes that do not fit, or ""; not an array.
    """

    azimuth: NDArray[np.float32]
    elevation: NDArray[np.float32]
    range_m: NDArray[np.float32]
    azimuth_std: NDArray[np.float32]
    elevation_std: NDArray[np.float32]
    range_std_m: NDArray[np.float32]
    range_low_m: NDArray[np.float32]
    range_high_m: NDArray[np.float32]
    far: NDArray[np.bool_]
    confidence: NDArray[np.float32]
    active: NDArray[np.bool_]
    resolved: NDArray[np.bool_]
    num_sources: NDArray[np.int64]
    explained: NDArray[np.float32]
    p_value: NDArray[np.float32]
    fits: NDArray[np.bool_]
    reversed_gain: NDArray[np.float32]
    sign_evidence: NDArray[np.float32]
    scale: NDArray[np.float32]
    scale_std: NDArray[np.float32]
    reason: NDArray[np.str_]
    origin: NDArray[np.str_]
    better_reading: NDArray[np.str_]
    credible_radius: NDArray[np.float32] = field(default_factory=_unread)
    expected_error: NDArray[np.float32] = field(default_factory=_unread)
    effective_points: NDArray[np.float32] = field(default_factory=_unread)
    resampled: NDArray[np.bool_] = field(default_factory=lambda: np.empty(0, np.bool_))
    probabilities: NDArray[np.float32] = field(default_factory=_unread)
    diagnosis: str = ""

    def save(self, path: str | Path) -> None:
        """Write the arrays to an `.npz` file, whole or not at all.

        Raises:
            ConfigError: if it cannot be written.
        """
        arrays: dict[str, Any] = self.arrays()
        content = io.BytesIO()
        np.savez(content, **arrays)
        write_output(Path(path), content.getvalue(), "--out")

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays by name."""
        names = (each.name for each in dataclasses.fields(self) if each.name != "diagnosis")
        return {name: getattr(self, name) for name in names}

    def origin_line(self) -> str:
        """Return a line that counts scenes by the origin of their places; "" if none is judged."""
        counts = Counter(origin for origin in self.origin.tolist() if origin)
        listed = ", ".join(f"{count} by {origin}" for origin, count in counts.most_common())
        return f"places of scenes: {listed}" if counts else ""

    def sampling_line(self) -> str:
        """Return a line that counts scenes whose posterior took more points; "" if none did."""
        again, poor = int(self.resampled.sum()), int((self.reason == POOR).any(-1).sum())
        if not again:
            return ""
        said = f"posterior sampled again with more points: {again} of {len(self.resampled)} scenes"
        return f"{said}, {poor} of them still too poorly" if poor else said

    @classmethod
    def concatenate(cls, parts: list[Self]) -> Self:
        """Join the scenes of several parts, in this order."""
        names = parts[0].arrays()
        joined: dict[str, Any] = {n: np.concatenate([p.arrays()[n] for p in parts]) for n in names}
        return cls(**joined)


def add_posterior(found: Localisation, read: PosteriorReadout | None) -> Localisation:
    """Return the same with what the posterior says, NaN where it was not asked.

    Confidence of scenes that it is sampled too poorly for is withheld.
    """
    size, slots = found.active.shape
    if read is None:
        of_scenes, of_estimates, of_counts = (
            np.full(shape, np.nan, np.float32)
            for shape in ((size,), (size, slots), (size, slots + 1))
        )
        return replace(
            found,
            credible_radius=of_estimates,
            expected_error=of_scenes,
            effective_points=of_scenes,
            resampled=np.zeros(size, np.bool_),
            probabilities=of_counts,
        )
    unsure = (read.poor.unsqueeze(-1) & read.active).cpu().numpy() & (found.reason == "")
    return replace(
        found,
        confidence=np.where(unsure, np.float32(np.nan), found.confidence),
        reason=np.where(unsure, POOR, found.reason),
        credible_radius=read.credible_radius.cpu().numpy(),
        expected_error=read.expected_error.cpu().numpy(),
        effective_points=read.worth.cpu().numpy(),
        resampled=read.resampled.cpu().numpy(),
        probabilities=read.probabilities.cpu().numpy(),
    )
