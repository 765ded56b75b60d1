"""The result of a localisation: arrays of all scenes."""

import dataclasses
import io
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from trainer.atomic import write_output
from trainer.config import require


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
        far: [S, K], the range is too far to be told.
        confidence: [S, K], probability of lying within 5° and 5° of a source
            (`evaluation.confidence`), given that the scene is of the law; 0 in inactive slots, NaN
            where it is withheld.
        reason: [S, K], why it is withheld (`vouching`); "" where it is not.
        active: [S, K], slots that hold an estimate: the first `num_sources` of a scene. The
            others hold the centre of the region.
        resolved: [S, K], estimates that stand out from noise (`estimation.estimates`); the others
            are best guesses.
        num_sources: [S], K as given or estimated.
        explained: [S], share of the snapshots' energy that least squares at the scene's best
            places explains (`best_places`).
        p_value: [S], of the goodness of fit there; NaN where it cannot be tested.
        fits: [S], p_value >= `best_places.LEVEL`; false in all scenes of a recording that fits
            with the phase sign reversed (`vouching.withhold_reversed`).
        reversed_gain: [S], log likelihood gained with the phase sign reversed.
        origin: [S], where the places are from, a word of `estimation.ORIGINS`; "" unless a model
            judged them by the likelihood.
        diagnosis: what is to be said about scenes that do not fit, or ""; not an array.
    """

    azimuth: NDArray[np.float32]
    elevation: NDArray[np.float32]
    range_m: NDArray[np.float32]
    azimuth_std: NDArray[np.float32]
    elevation_std: NDArray[np.float32]
    range_std_m: NDArray[np.float32]
    far: NDArray[np.bool_]
    confidence: NDArray[np.float32]
    active: NDArray[np.bool_]
    resolved: NDArray[np.bool_]
    num_sources: NDArray[np.int64]
    explained: NDArray[np.float32]
    p_value: NDArray[np.float32]
    fits: NDArray[np.bool_]
    reversed_gain: NDArray[np.float32]
    reason: NDArray[np.str_]
    origin: NDArray[np.str_]
    diagnosis: str = ""

    def save(self, path: str | Path) -> None:
        """Write the arrays to an `.npz` file, whole or not at all.

        Raises:
            ConfigError: if it cannot be written.
        """
        path = Path(path)
        require(path.suffix == ".npz", "--out ends in .npz", f"{path}", "Rename it.")
        arrays: dict[str, Any] = self.arrays()
        content = io.BytesIO()
        np.savez(content, **arrays)
        write_output(path, content.getvalue(), "--out")

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays by name."""
        names = (field.name for field in dataclasses.fields(self) if field.name != "diagnosis")
        return {name: getattr(self, name) for name in names}

    def origin_line(self) -> str:
        """Return a line that counts scenes by the origin of their places; "" if none is judged."""
        counts = Counter(origin for origin in self.origin.tolist() if origin)
        listed = ", ".join(f"{count} by {origin}" for origin, count in counts.most_common())
        return f"places of scenes: {listed}" if counts else ""

    @classmethod
    def concatenate(cls, parts: list[Self]) -> Self:
        """Join the scenes of several parts, in this order."""
        names = parts[0].arrays()
        joined: dict[str, Any] = {n: np.concatenate([p.arrays()[n] for p in parts]) for n in names}
        return cls(**joined)
