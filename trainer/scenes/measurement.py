"""The types of simulated and recorded scenes: `Scenes`, and their true `Sources`."""

import functools
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from trainer.linalg import squared_magnitude

from .geometry import Panel, steering_vector

CODE_TOLERANCE = 1e-3
"""Codes whose modulus differs from 1 by less have modulus 1."""
_KNOWN = "_has_unit_modulus"


@dataclass(frozen=True)
class Sources:
    """True sources, active ones first; all tensors [B, K_max].

    Attributes:
        azimuth, elevation: [rad]; 0 where inactive.
        range_m: [m]; the largest of the region where inactive.
        power: expected |s|²; 0 where inactive.
        active: true where there is a source.
        correlation: coefficient between any two sources of a scene, in [0, 1).
    """

    azimuth: Tensor
    elevation: Tensor
    range_m: Tensor
    power: Tensor
    active: Tensor
    correlation: float = 0.0

    @property
    def num_sources(self) -> Tensor:
        """K of each scene, [B]."""
        return self.active.sum(-1)

    @property
    def covariance_root(self) -> Tensor:
        """Lower triangular T with T Tᴴ = P, real, [B, K_max, K_max]."""
        size, like = self.power.shape[-1], (self.power.dtype, self.power.device)
        return self.power.sqrt().unsqueeze(-1) * _unit_root(size, self.correlation, *like)

    @property
    def covariance(self) -> Tensor:
        """P = E s sᴴ, real, [B, K_max, K_max]; rows and columns of inactive sources are zero."""
        root = self.covariance_root
        return root @ root.mT

    def take(self, scenes: slice | Tensor) -> Self:
        """Return the sources of some of the scenes, by a slice or by their numbers."""
        names = ("azimuth", "elevation", "range_m", "power", "active")
        return replace(self, **{name: getattr(self, name)[scenes] for name in names})

    def to(self, device: torch.device | str, dtype: torch.dtype) -> Self:
        """Return the sources on another device, in another real dtype."""
        real = {
            name: getattr(self, name).to(device, dtype)
            for name in ("azimuth", "elevation", "range_m", "power")
        }
        return replace(self, **real, active=self.active.to(device))


@dataclass(frozen=True)
class Scenes:
    """A batch of B scenes, simulated or recorded.

    Attributes:
        panel: common to the batch.
        snapshots: y, [B, L, M].
        channel: H, [B, M, N].
        codes: c, reflection coefficients |c| <= 1, [B, L, N]; 0 where an element is dead.
        truth: the sources, or None if unknown; see `sources`.
        snr_db: [B]; NaN if unknown.
        noise_variance: σ², [B]; NaN if unknown.
        noise_covariance: Q, unit diagonal, complex [B, M, M]; None if the noise is white.
    """

    panel: Panel
    snapshots: Tensor
    channel: Tensor
    codes: Tensor
    truth: Sources | None
    snr_db: Tensor
    noise_variance: Tensor
    noise_covariance: Tensor | None = None

    @property
    def sources(self) -> Sources:
        """The true sources.

        Raises:
            ValueError: if they are unknown.
        """
        if self.truth is None:
            raise ValueError(
                "scenes must know their sources here, but these were recorded without truth, or "
                "are a network's, which is told none. To a recording, add the arrays azimuth, "
                "elevation and range_m."
            )
        return self.truth

    def to(
        self, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> Self:
        """Return the scenes on another device, in another complex dtype."""
        device = self.snapshots.device if device is None else device
        dtype = self.snapshots.dtype if dtype is None else dtype
        real = dtype.to_real()
        shape = self.noise_covariance
        return replace(
            self,
            snapshots=self.snapshots.to(device, dtype),
            channel=self.channel.to(device, dtype),
            codes=self.codes.to(device, dtype),
            truth=None if self.truth is None else self.truth.to(device, real),
            snr_db=self.snr_db.to(device, real),
            noise_variance=self.noise_variance.to(device, real),
            noise_covariance=None if shape is None else shape.to(device, dtype),
        )

    def in_usual_units(self) -> Self:
        """Return scenes whose snapshots, channel and codes have moduli up to about 1 each.

        They are divided by powers of 2, which rounds nothing: sums of their squares neither
        overflow nor vanish, whatever the units were.
        """
        signals = {name: getattr(self, name) for name in ("snapshots", "channel", "codes")}
        scale = {}
        for name, value in signals.items():
            largest = value.abs().flatten(1).amax(-1)
            largest = largest.where(largest > 0, torch.ones_like(largest))
            # of moduli in .75 ... 1.5 it is 1: codes of modulus 1 keep it
            scale[name] = largest / 1.5 / torch.frexp(largest / 1.5).mantissa
            signals[name] = value / scale[name][:, None, None]
        noise_variance = self.noise_variance / scale["snapshots"].square()
        truth = self.truth
        if truth is not None:
            gain = scale["channel"] * scale["codes"] / scale["snapshots"]
            truth = replace(truth, power=truth.power * gain.square().unsqueeze(-1))
        return replace(self, **signals, noise_variance=noise_variance, truth=truth)

    def take(self, scenes: slice | Tensor) -> Self:
        """Return some of the scenes, by a slice (as views) or by their numbers."""
        names = ("snapshots", "channel", "codes", "snr_db", "noise_variance")
        shape = self.noise_covariance
        return replace(
            self,
            **{name: getattr(self, name)[scenes] for name in names},
            truth=None if self.truth is None else self.truth.take(scenes),
            noise_covariance=None if shape is None else shape[scenes],
        )

    def take_elements(self, kept: Tensor) -> Self:
        """Return the scenes of a panel without the other elements, [N] booleans."""
        return replace(
            self,
            panel=self.panel.take(kept),
            channel=self.channel[..., kept],
            codes=self.codes[..., kept],
        )

    def without_dead_elements(self) -> Self:
        """Return the scenes of a panel without elements whose code is 0 in all of them."""
        used = (self.codes != 0).flatten(0, 1).any(0)
        return self.take_elements(used) if bool(used.any() & ~used.all()) else self

    @property
    def batch_size(self) -> int:
        """B."""
        return self.snapshots.shape[0]

    @property
    def num_snapshots(self) -> int:
        """L."""
        return self.snapshots.shape[-2]

    @property
    def num_antennas(self) -> int:
        """M."""
        return self.snapshots.shape[-1]


@functools.lru_cache(maxsize=16)  # made on the CPU: a GPU would wait for it at every step
def _unit_root(size: int, correlation: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return lower triangular T with T Tᴴ = P of sources of power 1, [size, size]."""
    eye = torch.eye(size, dtype=torch.float64)
    return torch.linalg.cholesky(correlation + (1 - correlation) * eye).to(device, dtype)


def with_unit_modulus(codes: Tensor) -> Tensor:
    """Return codes of modulus 1, of which `has_unit_modulus` then knows without reading them."""
    setattr(codes, _KNOWN, True)
    return codes


def has_unit_modulus(codes: Tensor) -> bool:
    """Return whether all codes have modulus 1; waits for the device, unless that is known.

    It is known of the very tensor that `with_unit_modulus` was given, not of its parts or copies.
    """
    if hasattr(codes, _KNOWN):
        return True
    return bool((squared_magnitude(codes) - 1).abs().amax() < 2 * CODE_TOLERANCE)


def expected_signal(
    panel: Panel, channel: Tensor, codes: Tensor, sources: Sources
) -> tuple[Tensor, Tensor]:
    """Return G_l A T, T Tᴴ = P, [B, L, M, K], and its mean power per snapshot and antenna [B]."""
    place = panel, sources.azimuth, sources.elevation, sources.range_m
    steering = steering_vector(*place)
    mixed = respond(channel, codes, steering) @ sources.covariance_root.unsqueeze(1).to(codes)
    # abs().square(), not `squared_magnitude`: recorded trials replay bit for bit
    return mixed, mixed.abs().square().mean((1, 2)).sum(-1)


def expected_snr_db(scenes: Scenes) -> Tensor:
    """Return sum_l tr(G_l A P Aᴴ G_lᴴ) / (L M σ²) in dB, [B]; NaN without sources or σ²."""
    _, power = expected_signal(scenes.panel, scenes.channel, scenes.codes, scenes.sources)
    ratio = power / scenes.noise_variance
    return 10 * ratio.where(power > 0, torch.full_like(power, torch.nan)).log10()


def respond(channel: Tensor, codes: Tensor, vectors: Tensor) -> Tensor:
    """Return G_l x = H (c_l ∘ x) [B, L, M, Q] of panel vectors x [B, Q, N].

    Args:
        channel: H [B, M, N].
        codes: c [B, L, N].
    """
    coded = codes.unsqueeze(2) * vectors.unsqueeze(1)  # [B, L, Q, N]
    received = coded.flatten(1, 2) @ channel.mT
    return received.unflatten(1, coded.shape[1:3]).mT
