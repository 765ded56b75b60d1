"""Sparse covariance fitting: powers on a grid that maximise the likelihood of the snapshots.

R = sum_g γ_g a_g a_gᴴ and C_l = G_l R G_lᴴ + σ² I, with γ >= 0 and σ² unknown. The likelihood is
majorised at the present powers (log det C by its tangent, yᴴ C⁻¹ y by convexity) and minimised:

    γ_g <- γ_g sqrt( sum_l |f_glᴴ C_l⁻¹ y_l|² / sum_l f_glᴴ C_l⁻¹ f_gl ),   f_gl = G_l a_g

and σ² likewise, with C_l⁻¹ y_l and tr C_l⁻¹. The likelihood never falls. This is the criterion of
LIKES (Stoica and Babu 2012, "SPICE and LIKES", section 4) with codes that differ from snapshot to
snapshot, and the update of Sun, Babu and Palomar 2017, "Majorization-minimization algorithms",
section IV. No f_gl is formed: numerators are a back-projection, denominators one N x N form
(`covariance_fit.QuadraticForms`).
"""

from dataclasses import replace

import torch
from torch import Tensor

from trainer.covariance import (
    Observations,
    QuadraticForms,
    channel_eigenmodes,
    fit_loading,
    unit_trace,
    whiten,
)
from trainer.linalg import squared_magnitude
from trainer.scenes import Scenes, SearchGrid

STEPS = 30
"""From 3 over 10 to 30 steps estimates improve; more steps sharpen what is left."""
PART = {"cpu": 2**23, "cuda": 2**28}
"""Largest number of entries of one batch of weighted dictionaries."""


@torch.no_grad()
def sparse_covariance(scenes: Scenes, search: SearchGrid, *, steps: int = STEPS) -> Tensor:
    """R, trace 1, of powers fitted from a flat start: [B, N, N]."""
    scenes = in_own_units(scenes)
    signal, loading = fit_loading(channel_eigenmodes(scenes))
    snapshots, channel = whiten(scenes)
    size = max(1, PART[snapshots.device.type] // search.steering.numel())
    parts = [
        _fit(y, h, c, p, v, search, steps)
        for y, h, c, p, v in zip(
            *(x.split(size) for x in (snapshots, channel, scenes.codes, signal, signal * loading)),
            strict=True,
        )
    ]
    return unit_trace(torch.cat(parts))


def in_own_units(scenes: Scenes) -> Scenes:
    """The same scenes with peaks of snapshots and channel in [1, 2), exactly: R is the same."""

    def scaled(values: Tensor) -> Tensor:
        _, exponent = values.abs().amax((-2, -1), keepdim=True).frexp()
        return torch.complex(values.real.ldexp(1 - exponent), values.imag.ldexp(1 - exponent))

    return replace(scenes, snapshots=scaled(scenes.snapshots), channel=scaled(scenes.channel))


def _fit(
    snapshots: Tensor,
    channel: Tensor,
    codes: Tensor,
    signal: Tensor,
    noise: Tensor,
    search: SearchGrid,
    steps: int,
) -> Tensor:
    """The same for one part: y [B, L, M], H [B, M, N], c [B, L, N], p and σ² [B]."""
    tiny = torch.finfo(signal.dtype).tiny
    steering = search.steering
    # without any power the fit stays at nothing
    signal, noise = (x.clamp(min=tiny**0.5) for x in (signal, noise))
    powers = (signal / len(steering)).unsqueeze(-1).expand(-1, len(steering))
    operators = channel.unsqueeze(1) * codes.unsqueeze(2)  # G_l, [B, L, M, N]
    for _ in range(steps):
        step = ascend(snapshots, operators, powers, noise, search)
        powers, noise = (x.clamp(min=tiny) for x in step)
    return synthesise(powers, search)


def ascend(
    snapshots: Tensor, operators: Tensor, powers: Tensor, noise: Tensor, search: SearchGrid
) -> tuple[Tensor, Tensor]:
    """One update of γ [B, G] and σ² [B], from G_l [B, L, M, N]."""
    forms = QuadraticForms.of(
        Observations(snapshots, operators), synthesise(powers, search), noise
    )
    pull = squared_magnitude(search.correlate(forms.back)).sum(1)
    spread = ((forms.seen @ search.steering.mT) * search.steering.mH).sum(1).real
    tiny = torch.finfo(powers.dtype).tiny
    return (
        powers * (pull / spread.clamp(min=tiny)).sqrt(),
        noise * (forms.noise_power / forms.traces.clamp(min=tiny)).sqrt(),
    )


def synthesise(powers: Tensor, search: SearchGrid) -> Tensor:
    """sum_g γ_g a_g a_gᴴ: [B, G] -> [B, N, N]."""
    return (search.steering.mT * powers.unsqueeze(1)) @ search.steering.conj()
