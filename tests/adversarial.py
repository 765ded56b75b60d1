"""Hermitian matrices and factors on which spectral derivatives go wrong, and the checks of them.

Sixteen classes of matrices R [N, N] and fifteen of factors F [N, r], with N = 12, r = 8, K = 3.
"""

import torch
from torch import Tensor

from trainer.spectral.decomposition import spectrum
from trainer.spectral.spectrum_type import Spectrum

SIZE, SOURCES, RANK = 12, 3, 8
THRESHOLD, SNAPSHOTS, MAX_SOURCES = 0.5, 16, 5


def _gaussian(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.randn(shape, dtype=torch.complex128, generator=generator)


def _unitary(count: int, generator: torch.Generator) -> Tensor:
    return torch.linalg.qr(_gaussian((count, SIZE, SIZE), generator))[0]


def rotated(values: Tensor, generator: torch.Generator) -> Tensor:
    w = _unitary(len(values), generator)
    return (w * values.unsqueeze(-2)) @ w.mH


def _integers(count: int, generator: torch.Generator) -> Tensor:
    return torch.randint(0, 4, (count, SIZE), generator=generator).double()


def _steering(count: int, generator: torch.Generator) -> Tensor:
    """Three sources of a half-wavelength line array, two of them 1e-4 .. 1e-1 rad apart."""
    u = 2 * torch.rand(count, 3, generator=generator, dtype=torch.float64) - 1
    u[:, 1] = u[:, 0] + 10 ** (-4 + 3 * torch.rand(count, generator=generator).double())
    positions = torch.arange(SIZE, dtype=torch.float64)
    return torch.exp(1j * torch.pi * positions[:, None] * u[:, None, :])


def _decades(count: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    exponent = low + (high - low) * torch.rand(count, generator=generator, dtype=torch.float64)
    return 10**exponent


def matrices(count: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Return `count` matrices [count, N, N] of each class, complex128."""
    g = generator
    eye = torch.eye(SIZE, dtype=torch.complex128).expand(count, SIZE, SIZE)
    wide = _gaussian((count, SIZE, 2 * SIZE), g)
    thin = _gaussian((count, SIZE, 5), g)
    steer = _steering(count, g)
    block = _gaussian((count, 4, 6), g)
    noise = _gaussian((count, SIZE, SIZE), g)
    pairs = _decades(count * SIZE // 2, -2, 0, g).reshape(count, -1)
    spectrum = _decades(count * SIZE, -8, 0, g).reshape(count, SIZE).sort(-1, True).values
    tied = spectrum.clone()
    tied[:, SOURCES] = tied[:, SOURCES - 1]
    lags = torch.randn(count, SIZE, generator=g).double()
    index = (torch.arange(SIZE)[:, None] - torch.arange(SIZE)).abs()
    one = _gaussian((count, SIZE, 1), g)
    wishart = wide @ wide.mH / (2 * SIZE)
    return {
        "wishart": wishart,
        "rank-deficient + loading": thin @ thin.mH / 5 + 1e-4 * eye,
        "integer diagonal": torch.diag_embed(_integers(count, g)).to(torch.complex128),
        "rotated integers": rotated(_integers(count, g), g),
        "equal blocks": torch.einsum(
            "ij,bkl->bikjl", torch.eye(3, dtype=torch.complex128), block @ block.mH
        ).reshape(count, SIZE, SIZE),
        "close sources": steer @ steer.mH / 3 + 1e-3 * eye,
        "scales 1e+-17": wishart * _decades(count, -17, 17, g)[:, None, None],
        "identity + 1e-8": eye + 1e-8 * (noise + noise.mH) / 2,
        "+- pairs": rotated(torch.cat((pairs, -pairs), -1), g),
        "log-uniform 1e-8 .. 1": rotated(spectrum, g),
        "border tie": rotated(tied, g),
        "toeplitz": lags[:, index].to(torch.complex128),
        "rank one": one @ one.mH,
        "nearly dependent": thin[..., :1] @ thin[..., :1].mH + 1e-6 * thin @ thin.mH,
        "scales 1e+-30": wishart * _decades(count, -30, 30, g)[:, None, None],
        "zero": torch.zeros_like(wishart),
    }


def factors(count: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Return `count` factors [count, N, r] of each class, complex128."""
    g = generator
    gauss = _gaussian((count, SIZE, RANK), g)
    basis = _unitary(count, g)[..., :RANK]
    steer = _steering(count, g)
    grid = torch.arange(SIZE, dtype=torch.float64)
    dft = torch.exp(2j * torch.pi * grid[:, None] * grid[:RANK] / SIZE).expand_as(gauss)
    scales = _decades(count * RANK, -4, 0, g).reshape(count, 1, RANK)
    decades = _decades(count, -8.5, 8.5, g)[:, None, None]
    tied = scales.sort(-1, True).values.clone()
    tied[..., SOURCES] = tied[..., SOURCES - 1]
    integers = torch.randint(-1, 2, gauss.shape, generator=g).to(torch.complex128)
    amplitudes = torch.randint(0, 3, (count, 1, RANK), generator=g).to(torch.complex128)
    return {
        "gaussian": gauss,
        "zero columns": gauss * (torch.arange(RANK) < 5),
        "integers": integers,
        "equal orthogonal columns": dft.clone(),
        "integer amplitudes": basis * amplitudes,
        "close sources + noise": torch.cat((steer, 1e-2 * gauss[..., :5]), -1),
        "scales 1e+-17": gauss * decades,
        "equal + 1e-8": basis + 1e-8 * gauss,
        "repeated columns": gauss[..., [0, 0, 1, 1, 2, 2, 3, 3]],
        "log-uniform 1e-8 .. 1": basis * scales,
        "border tie": basis * tied,
        "rank one": gauss[..., :1] * torch.ones(RANK),
        "nearly dependent": gauss[..., :1] + 1e-3 * gauss,
        "scales 1e+-30": gauss * decades ** (15 / 8.5),
        "zero": torch.zeros_like(gauss),
    }


def targets(count: int, generator: torch.Generator) -> Tensor:
    """Return orthonormal bases U [count, N, K]."""
    return _unitary(count, generator)[..., :SOURCES]


def border_open(values: Tensor, roundoff: float, position: int = SOURCES) -> Tensor:
    """Return whether l_position - l_{position+1} > 1e3 u l_max, per sample."""
    width = values[..., position - 1] - values[..., position]
    return width > 1e3 * roundoff * values.abs().amax(-1)


LOSSES = {
    "ky fan": lambda s, u: s.values[..., :SOURCES].sum(-1),
    "gap": lambda s, u: s.gap(SOURCES),
    "ratio": lambda s, u: s.ratio(SOURCES),
    "energy": lambda s, u: s.energy(SOURCES),
    "leak": lambda s, u: torch.log1p(s.leak(SOURCES).relu()),
    "subspace": lambda s, u: s.capture(SOURCES, u),
    "threshold": lambda s, u: s.straddling(SOURCES, THRESHOLD),
    "count": lambda s, u: s.order_entropy(
        SOURCES, num_snapshots=SNAPSHOTS, max_sources=MAX_SOURCES, temperature=SNAPSHOTS
    ),
}
INDEFINITE = ("+- pairs", "toeplitz")
NEED_POSITIVE = ("ratio", "energy", "leak", "threshold", "count")
BORDERS = {
    "gap": (SOURCES - 1, SOURCES, SOURCES + 1),
    "ratio": (SOURCES - 1, SOURCES, SOURCES + 1),
    "threshold": (1, SOURCES - 1, SOURCES, SOURCES + 1),
    "count": tuple(range(1, MAX_SOURCES + 1)),
}
"""Loss -> positions i at which l_i = l_{i+1} has no derivative; of the others it is K alone."""
TOLERANCE = 2e-2


def losses_of(name: str) -> list[str]:
    """Return the losses that are defined for a class of matrices or factors."""
    return [loss for loss in LOSSES if name not in INDEFINITE or loss not in NEED_POSITIVE]


def decomposed(x: Tensor, backend: str, **options: float) -> Spectrum:
    """Return the spectrum of a dense matrix or, if `x` is not square, of a factor."""
    if x.shape[-1] == x.shape[-2]:
        return spectrum(x, backend=backend, **options)
    return spectrum(factor=x, backend=backend, **options)


def gradient(loss: str, x: Tensor, basis: Tensor, backend: str, **options: float) -> Tensor:
    """Return the gradient of the loss of every sample; NaN where its value is not finite."""
    leaf = x.clone().requires_grad_()
    value = LOSSES[loss](decomposed(leaf, backend, **options), basis)
    (found,) = torch.autograd.grad(value.sum(), leaf)
    return torch.where(torch.isfinite(value)[:, None, None], found, torch.nan)


def counted(loss: str, x: Tensor, roundoff: float) -> Tensor:
    """Return where the loss has a derivative that numbers of this roundoff can resolve."""
    values = decomposed(x.to(torch.complex128), "exact").values
    opened = [border_open(values, roundoff, i) for i in BORDERS.get(loss, (SOURCES,))]
    if loss == "count":  # the logarithm of a mean of zeros is its floor, and so the roundoff's
        opened.append(values[..., MAX_SOURCES] > 1e3 * roundoff * values[..., 0])
    return torch.stack(opened).all(0)


def vanishes(truth: Tensor, x: Tensor, loss: str, roundoff: float) -> Tensor:
    """Return whether a gradient is zero but for rounding, so that it has no relative error: below
    1e3 u of the size of the loss per unit of relative change of x."""
    x = x.to(torch.complex128)
    size = torch.linalg.matrix_norm(x)
    if loss in ("ky fan", "gap"):
        natural = torch.ones_like(size) if x.shape[-1] == x.shape[-2] else size
    else:
        natural = 1 / size
    if loss == "count":  # of 1 / l_i, whose error is u l_1 / l_i²
        values = decomposed(x, "exact").values
        natural = natural * (values[:, 0] / values[:, MAX_SOURCES]).square()
    return torch.linalg.matrix_norm(truth) < 1e3 * roundoff * natural


def relative_error(found: Tensor, truth: Tensor) -> Tensor:
    """Return ‖G - G_true‖ / ‖G_true‖ per sample."""
    scale = truth.abs().amax((-2, -1), keepdim=True)  # a norm would overflow at scale 1e+-30
    return torch.linalg.matrix_norm((found - truth) / scale) / torch.linalg.matrix_norm(
        truth / scale
    )


def difference_quotient(
    loss: str, x: Tensor, basis: Tensor, direction: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the central difference quotient along `direction`, by 1 % of the gaps that must stay
    open, and where it is worth a comparison: its truncation error is of the order of 0.01², and no
    derivative enters."""
    values = decomposed(x, "exact").values
    width = -values.diff()[:, [i - 1 for i in BORDERS.get(loss, (SOURCES,))]].amax(-1)
    per_step = torch.linalg.matrix_norm(direction)
    rounding = torch.zeros_like(width)
    if x.shape[-1] != x.shape[-2]:  # dR = dF Fᴴ + F dFᴴ
        per_step = 2 * per_step * torch.linalg.matrix_norm(x)
    if loss == "count":  # of logarithms; R must stay positive, a mean of noise nearly the same
        noise = values[:, MAX_SOURCES:]
        positive = noise[:, -1] if x.shape[-1] == x.shape[-2] else noise.mean(-1)
        width = torch.minimum(width, positive)
        rounding = torch.finfo(width.dtype).eps * values[:, 0] / noise[:, 0]
    step = (0.01 * width / per_step)[:, None, None] * direction

    def value(y: Tensor) -> Tensor:
        s = decomposed(y, "exact")
        # a step may leave R >= 0, where log1p(leak) still is smooth
        return torch.log1p(s.leak(SOURCES)) if loss == "leak" else LOSSES[loss](s, basis)

    quotient = (value(x + step) - value(x - step)) / (0.02 * width / per_step)
    return quotient, quotient.abs() >= 1e3 * rounding * per_step / (0.02 * width)
