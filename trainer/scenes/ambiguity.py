"""Directions that a panel of placed elements cannot tell apart, as a lattice's grating lobes.

Two directions that differ by Δ in direction cosines (u, v) have planar responses that correlate by

    |AF(Δ)| = |mean_n exp(jk (h_n Δu + v_n Δv))|

which near Δ = 0, inside the beam, is 1 - k² Δᵀ S Δ / 2, with S the covariance of the positions
(Van Trees 2002, Optimum Array Processing, sections 2.4 and 4.1). A lattice has |AF| = 1 again at
wavelength / spacing; `SceneConfig` knows that without a search. Wavefront curvature is left out:
far sources have none.
"""

import math

import torch
from torch import Tensor

from trainer.config import ConfigError, SceneConfig, require, unit_hint

from .geometry import Panel

ALIKE = 0.95
"""Correlation above which two directions are one; estimators take it as a repetition."""
BEAM = 1.0
"""Largest k² Δᵀ S Δ inside the beam, where the correlation has fallen to about 0.6."""
LARGEST_APERTURE = 200
"""In wavelengths; a wider panel was given in another unit, and its search would take too long."""
STEPS_PER_BEAM = 8
"""Steps of Δ per wavelength / aperture: a correlation of 1 between two of them exceeds 0.98."""


def require_unambiguous(scene: SceneConfig) -> None:
    """Check that no direction in front of the panel looks like another one in the region.

    Raises:
        ConfigError: if one does; the message has the largest region without.
    """
    require(
        max(scene.aperture_m) <= LARGEST_APERTURE * scene.wavelength_m,
        f"a panel is at most {LARGEST_APERTURE} wavelengths wide",
        f"{max(scene.aperture_m):.4g} m at wavelength_m={scene.wavelength_m:g}",
        "Give positions, spacing and wavelength in metres. "
        + unit_hint(scene.spacing_m, scene.wavelength_m, placed=True),
    )
    across, up = alike(Panel.from_config(scene), scene.aperture_m)
    limits = [
        1 + math.sin(math.radians(x)) for x in (scene.azimuth_max_deg, scene.elevation_max_deg)
    ]
    inside = (across < limits[0]) & (up < limits[1])
    if not bool(inside.any()):
        return
    worst = int((across + up).where(inside, torch.inf).argmin())
    # each of these differences must leave the region along the axis where it is larger
    wide = across >= up
    needed = {"azimuth": across[inside & wide], "elevation": up[inside & ~wide]}
    sines = {name: float(cosines.min()) - 1 for name, cosines in needed.items() if len(cosines)}
    remedy = "elements closer together"
    hint = unit_hint(scene.spacing_m, scene.wavelength_m, placed=True)
    if all(sine > 0 for sine in sines.values()):
        # rounded down, so that it holds as printed
        angles = {k: math.floor(10 * math.degrees(math.asin(s))) / 10 for k, s in sines.items()}
        fields = " and ".join(f"{name}_max_deg={angle:g}" for name, angle in angles.items())
        flags = " ".join(f"--{name}-deg {angle:g}" for name, angle in angles.items())
        remedy = f"{fields} (localise: {flags}), or {remedy}"
    raise ConfigError(
        "`directions of the region look like no other` must hold, but got positions_m for which "
        f"two that differ by ({across[worst]:.3g}, {up[worst]:.3g}) in direction cosines look "
        f"alike (a grating lobe). Use {remedy}." + (hint and f" {hint}")
    )


def alike(panel: Panel, aperture_m: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """Return (|Δu|, |Δv|) outside the beam, up to 2, where |AF| exceeds `ALIKE`: [n] each."""
    horizontal, vertical = panel.element_positions(torch.float64, torch.device("cpu"))
    wave = panel.wavenumber

    def axis(size: float, low: float) -> Tensor:
        steps = math.ceil(2 * STEPS_PER_BEAM * size / panel.wavelength_m)
        return torch.linspace(low, 2, max(steps, 1) * (1 if low == 0 else 2) + 1).double()

    across, up = axis(aperture_m[0], 0.0), axis(aperture_m[1], -2.0)  # AF(-Δ) = AF(Δ)*
    phases = [wave * x.unsqueeze(-1) * p for x, p in ((across, horizontal), (up, vertical))]
    left, right = (torch.polar(torch.ones_like(p), p) for p in phases)
    factor = (left @ right.mT).abs() / panel.num_elements
    h, v = horizontal - horizontal.mean(), vertical - vertical.mean()
    curvature = (
        h.square().mean() * across.square().unsqueeze(-1)
        + 2 * (h * v).mean() * across.unsqueeze(-1) * up
        + v.square().mean() * up.square()
    )
    found = (factor > ALIKE) & (wave**2 * curvature > BEAM)
    row, column = found.nonzero().unbind(-1)
    return across[row], up[column].abs()
