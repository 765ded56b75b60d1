"""Sparse covariance fitting: powers on a grid that maximise the likelihood of the snapshots.

R = sum_g γ_g a_g a_gᴴ and C_l = G_l R G_lᴴ + σ² I, with γ >= 0 and σ² unknown. Every step bounds
the negative log likelihood from above at the present powers (log det C by its tangent, yᴴ C⁻¹ y by
convexity) and minimises the bound:

    γ_g <- γ_g sqrt( sum_l |f_glᴴ C_l⁻¹ y_l|² / sum_l f_glᴴ C_l⁻¹ f_gl ),   f_gl = G_l a_g

and σ² likewise, with C_l⁻¹ y_l and tr C_l⁻¹, so that the likelihood never falls. The criterion is
that of LIKES (Stoica and Babu 2012, "SPICE and LIKES", section 4) with codes that differ from
snapshot to snapshot, the update that of Sun, Babu and Palomar 2017, "Majorization-minimization
algorithms", section IV. No f_gl is formed (`trainer.covariance.covariance_fit`).
"""

from dataclasses import replace

import torch
from torch import Tensor

from trainer.covariance import (
    Observations,
    Whitened,
    channel_eigenmodes,
    fit_loading,
    quadratic_forms,
    unit_trace,
    whiten,
)
from trainer.linalg import squared_magnitude
from trainer.scenes import Scenes, SearchGrid

STEPS = 30
"""Estimates improve from 3 over 10 to 30 steps, and little afterwards."""
PART = {"cpu": 2**23, "cuda": 2**28}
"""Largest number of entries of one part's weighted dictionaries."""


@torch.no_grad()
def sparse_covariance(scenes: Scenes, search: SearchGrid, *, steps: int = STEPS) -> Tensor:
    """Return R, trace 1, of powers fitted from a flat start: [B, N, N]."""
    scenes = _scaled(scenes)
    signal, loading = fit_loading(channel_eigenmodes(scenes))
    size = max(1, PART[signal.device.type] // search.steering.numel())
    tensors = (*whiten(scenes), signal, signal * loading)
    parts = [
        _fit(Whitened(*data), power, noise, search, steps)
        for *data, power, noise in zip(*(x.split(size) for x in tensors), strict=True)
    ]
    return unit_trace(torch.cat(parts))


def _scaled(scenes: Scenes) -> Scenes:
    # by powers of two, to peaks in [1, 2): exact, and R does not depend on it

    def scaled(values: Tensor) -> Tensor:
        _, exponent = values.abs().amax((-2, -1), keepdim=True).frexp()
        return torch.complex(values.real.ldexp(1 - exponent), values.imag.ldexp(1 - exponent))

    return replace(scenes, snapshots=scaled(scenes.snapshots), channel=scaled(scenes.channel))


def _fit(data: Whitened, signal: Tensor, noise: Tensor, search: SearchGrid, steps: int) -> Tensor:
    # p and σ² [B] -> R [B, N, N]
    tiny = torch.finfo(signal.dtype).tiny
    # without any power, the fit stays close to zero
    signal, noise = (x.clamp(min=tiny**0.5) for x in (signal, noise))
    points = len(search.steering)
    powers = (signal / points).unsqueeze(-1).expand(-1, points)
    observations = Observations(data.snapshots, data.responses)
    for _ in range(steps):
        step = update_powers(observations, powers, noise, search)
        powers, noise = (x.clamp(min=tiny) for x in step)
    return mixture(powers, search)


def update_powers(
    observations: Observations, powers: Tensor, noise: Tensor, search: SearchGrid
) -> tuple[Tensor, Tensor]:
    """Return γ [B, G] and σ² [B] after one step."""
    forms = quadratic_forms(observations, mixture(powers, search), noise)
    numerator = squared_magnitude(search.correlate(forms.back_projected)).sum(1)
    steering = search.steering
    denominator = ((forms.information @ steering.mT) * steering.mH).sum(1).real
    tiny = torch.finfo(powers.dtype).tiny
    return (
        powers * (numerator / denominator.clamp(min=tiny)).sqrt(),
        noise * (forms.noise_power / forms.traces.clamp(min=tiny)).sqrt(),
    )


def mixture(powers: Tensor, search: SearchGrid) -> Tensor:
    """Return sum_g γ_g a_g a_gᴴ: [B, G] -> [B, N, N]."""
    return (search.steering.mT * powers.unsqueeze(1)) @ search.steering.conj()
