"""Gradients of the adversarial losses from an eigendecomposition in 40 digits: the truth where
complex128 itself is in question.

The formulas are the textbook's (docs/eigengap.md); that they are derivatives is checked elsewhere,
by differences. What is in question here is what rounding does to them.
"""

from collections.abc import Iterable

import mpmath
import torch
from torch import Tensor

from tests import adversarial
from tests.adversarial import SIZE, SOURCES

DIGITS = 40


def gradients(x: Tensor, basis: Tensor, losses: Iterable[str]) -> dict[str, Tensor]:
    """Return the gradient of each loss at one R [N, N] or F [N, r], rounded to complex128."""
    with mpmath.workdps(DIGITS):
        given, basis = _exactly(x), _exactly(basis)
        r = given if given.rows == given.cols else given * given.H
        values, w = mpmath.eighe((r + r.H) / 2)
        order = sorted(range(SIZE), key=lambda i: -values[i])
        values = [values[i] for i in order]
        w = mpmath.matrix([[w[n, i] for i in order] for n in range(SIZE)])
        found = {}
        for loss in losses:
            inner = _of_projector(values, w.H * basis) if loss == "subspace" else None
            if inner is None:
                inner = mpmath.diag(_slopes(loss, values))
            gradient = w * inner * w.H
            if given.rows != given.cols:
                gradient = 2 * gradient * given
            found[loss] = _rounded(gradient)
    return found


def near_border(count: int, roundoff: float, generator: torch.Generator) -> Tensor:
    """Return matrices [count, N, N] whose border gap is 1e3 to 1e4 roundoffs of the largest
    eigenvalue, the narrowest that counts as open."""
    values = torch.rand(count, SIZE, dtype=torch.float64, generator=generator).sort(-1, True)[0]
    width = 10 ** (3 + torch.rand(count, dtype=torch.float64, generator=generator)) * roundoff
    # all others stay where they are: only the border is narrow
    values[:, SOURCES] = values[:, SOURCES - 1] - width * values[:, 0]
    return adversarial.rotated(values, generator)


def _of_projector(values: list[mpmath.mpf], y: mpmath.matrix) -> mpmath.matrix:
    """Y Yᴴ over the gaps across the border, 0 elsewhere; Y = Wᴴ U."""
    inner = y * y.H
    for i in range(SIZE):
        for j in range(SIZE):
            across = (i < SOURCES) != (j < SOURCES)
            inner[i, j] *= 1 / abs(values[i] - values[j]) if across else 0
    return inner


def _slopes(loss: str, values: list[mpmath.mpf]) -> list[mpmath.mpf]:
    """dLoss / dl_i."""
    top, rest = range(SOURCES), range(SOURCES, SIZE)
    slopes = [mpmath.mpf(0)] * SIZE
    up, down = values[SOURCES - 1], values[SOURCES]
    if loss == "ky fan":
        return [mpmath.mpf(i < SOURCES) for i in range(SIZE)]
    if loss == "gap":
        slopes[SOURCES - 1], slopes[SOURCES] = mpmath.mpf(1), mpmath.mpf(-1)
    elif loss == "ratio":
        slopes[SOURCES - 1] = 2 * down / (up + down) ** 2
        slopes[SOURCES] = -2 * up / (up + down) ** 2
    elif loss == "energy":
        kept, total = sum(values[:SOURCES]), sum(values)
        slopes = [((i < SOURCES) * total - kept) / total**2 for i in range(SIZE)]
    elif loss == "threshold":
        first, up, down = values[0], up / values[0], down / values[0]
        t = mpmath.mpf(adversarial.THRESHOLD)
        slopes[SOURCES - 1], slopes[SOURCES] = (down - t) / first, (up - t) / first
        slopes[0] = -((down - t) * up + (up - t) * down) / first
    elif loss == "count":
        return _slopes_of_count(values)
    else:
        pairs = [(i, j, values[i] - values[j]) for i in top for j in rest]
        leak = sum(values[i] * values[j] / d**2 for i, j, d in pairs)
        for i, j, d in pairs:
            total = (values[i] + values[j]) / d**3 / (1 + leak)
            slopes[i] -= values[j] * total
            slopes[j] += values[i] * total
    return slopes


def _slopes_of_count(values: list[mpmath.mpf]) -> list[mpmath.mpf]:
    # the temperature is the number of snapshots, by which all but the penalty is multiplied
    orders, snapshots = range(adversarial.MAX_SOURCES + 1), adversarial.SNAPSHOTS
    means = [sum(values[k:]) / (SIZE - k) for k in orders]
    costs = [
        (SIZE - k) * mpmath.log(means[k])
        - sum(mpmath.log(v) for v in values[k:])
        + k * (2 * SIZE - k) * mpmath.log(snapshots) / (2 * snapshots)
        for k in orders
    ]
    total = sum(mpmath.exp(-cost) for cost in costs)
    weights = [(k == SOURCES) - mpmath.exp(-costs[k]) / total for k in orders]
    return [
        sum(weights[k] * (1 / means[k] - 1 / values[i]) for k in orders if k <= i)
        for i in range(SIZE)
    ]


def _exactly(x: Tensor) -> mpmath.matrix:
    return mpmath.matrix([[mpmath.mpc(complex(v)) for v in row] for row in x.tolist()])


def _rounded(x: mpmath.matrix) -> Tensor:
    rows = [[complex(x[n, m]) for m in range(x.cols)] for n in range(x.rows)]
    return torch.tensor(rows, dtype=torch.complex128)
