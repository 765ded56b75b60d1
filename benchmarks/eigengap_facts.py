"""NaN and wrong rates on adversarial inputs, and the founding claims measured again."""

import sys
from collections.abc import Callable
from pathlib import Path

import torch
from scipy.stats import spearmanr
from torch import Tensor

from trainer.spectral import dominance_loss, spectrum

sys.path.append(str(Path(__file__).parents[1]))
from tests import adversarial, forty_digits

Gradient = Callable[[Tensor, Tensor], Tensor]


def by(backend: str, loss: str, **options: float) -> tuple[str, Gradient]:
    """Return a loss's name and the function that computes its gradient through a backend."""
    return loss, lambda x, u: adversarial.gradient(loss, x, u, backend, **options)


def flipped_gap(x: Tensor, basis: Tensor) -> Tensor:
    """Return the founding gap: singular values, taken for ascending and flipped."""
    leaf = x.clone().requires_grad_()
    values = torch.linalg.svd(leaf)[1].flip(-1)
    k = adversarial.SOURCES
    (gradient,) = torch.autograd.grad((values[:, k - 1] - values[:, k]).sum(), leaf)
    return gradient


DERIVATIVES: dict[str, tuple[str, str, Gradient]] = {
    "gap, `eigh`": ("matrices", *by("eigh", "gap")),
    "gap, `svd`": ("matrices", *by("svd", "gap")),
    "gap, `svd` with the founding flip": ("matrices", "gap", flipped_gap),
    "projector, `eigh`": ("matrices", *by("eigh", "subspace")),
    "projector, `svd`": ("matrices", *by("svd", "subspace")),
    "projector, `masked` 1e-9": ("matrices", *by("masked", "subspace", deg_thresh=1e-9)),
    "projector, `masked` 1e-6": ("matrices", *by("masked", "subspace", deg_thresh=1e-6)),
    **{f"{loss}, `exact`": ("matrices", *by("exact", loss)) for loss in adversarial.LOSSES},
    **{f"{loss}, `gram`": ("factors", *by("gram", loss)) for loss in adversarial.LOSSES},
}


def attempted(gradient: Gradient, x: Tensor, basis: Tensor) -> Tensor:
    """Return the gradient; NaN for samples on which PyTorch raises instead."""
    try:
        return gradient(x, basis)
    except RuntimeError:
        if len(x) == 1:
            return torch.full_like(x, torch.nan)
        half = len(x) // 2
        parts = (
            attempted(gradient, x[:half], basis[:half]),
            attempted(gradient, x[half:], basis[half:]),
        )
        return torch.cat(parts)


def rates(count: int) -> str:
    """Return, per method and precision, the non-finite share where the border is open and where it
    is not, and the share of wrong gradients (> 2e-2, against complex128 on the same rounded input)
    where it is."""
    generator = torch.Generator().manual_seed(0)
    classes = {
        "matrices": adversarial.matrices(count // 16, generator),
        "factors": adversarial.factors(count // 15, generator),
    }
    head = ("derivative", *("non-finite % open / closed", "judged %", "wrong %") * 2)
    rows = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for name, (kind, loss, gradient) in DERIVATIVES.items():
        row = f"| {name} |"
        for dtype in (torch.complex64, torch.complex128):
            tally = torch.zeros(6, dtype=torch.float64)
            for label, x in classes[kind].items():
                if loss not in adversarial.losses_of(label):
                    continue
                tally += _tally(gradient, x.to(dtype), loss, dtype)
            opened, closed, bad_open, bad_closed, judged, wrong = tally.tolist()
            row += f" {_percent(bad_open, opened)} / {_percent(bad_closed, closed)} |"
            row += f" {_percent(judged, opened)} | {_percent(wrong, judged)} |"
        rows.append(row)
    return "\n".join(rows)


def _tally(gradient: Gradient, x: Tensor, loss: str, dtype: torch.dtype) -> Tensor:
    roundoff = torch.finfo(dtype).eps / 2
    basis = adversarial.targets(len(x), torch.Generator().manual_seed(1)).to(dtype)
    wide = x.to(torch.complex128)
    truth = adversarial.gradient(loss, wide, basis.to(torch.complex128), "exact")
    found = attempted(gradient, x, basis)
    bad = ~torch.isfinite(found).all(-1).all(-1)
    opened = adversarial.border_open(
        adversarial.decomposed(wide, "exact").values, roundoff, adversarial.SOURCES
    )
    judged = adversarial.counted(loss, x, roundoff)
    judged &= ~adversarial.vanishes(truth, x, loss, roundoff)
    wrong = adversarial.relative_error(found, truth) > adversarial.TOLERANCE
    wrong &= judged & ~bad
    tally = [opened, ~opened, bad & opened, bad & ~opened, judged, wrong]
    return torch.stack([t.double().sum() for t in tally])


def _percent(part: float, whole: float) -> str:
    return "-" if whole == 0 else f"{100 * part / whole:.1f}" if part else "0"


def _low_rank(count: int, n: int, rank: int) -> Tensor:
    g = torch.Generator().manual_seed(0)
    f = torch.randn((count, n, rank), dtype=torch.complex64, generator=g)
    return f / torch.linalg.matrix_norm(f)[:, None, None]


def loading_and_ties() -> str:
    """Return the non-finite share of projector gradients of trace-1 R, N = 144, rank 21, by
    EPS_PSD."""
    f = _low_rank(64, 144, 21)
    u = torch.linalg.qr(_low_rank(64, 144, 5))[0]
    loads = (1e-8, 1e-6, 1e-4, 1e-2, 1e-1)
    rows = ["| EPS_PSD | " + " | ".join(f"{load:g}" for load in loads) + " |"]
    rows.append("|---" * (len(loads) + 1) + "|")
    for backend in ("eigh", "svd", "masked", "exact", "gram"):
        row = f"| `{backend}` |"
        for load in loads:
            leaf = f.clone().requires_grad_()
            value = spectrum(factor=leaf, shift=load, backend=backend).capture(5, u)
            (g,) = torch.autograd.grad(value.sum(), leaf)
            bad = ~torch.isfinite(g).all(-1).all(-1)
            row += f" {_percent(float(bad.sum()), len(bad))} % |"
        rows.append(row)
    return "\n".join(rows)


def founding_claims() -> str:
    """Return one line per claim that is a number."""
    f = _low_rank(64, 144, 21)
    r = f @ f.mH + 1e-4 / 144 * torch.eye(144)

    def gap_gradient(backend: str) -> Tensor:
        leaf = r.clone().requires_grad_()
        return torch.autograd.grad(spectrum(leaf, backend=backend).gap(3).sum(), leaf)[0]

    by_eigh, by_svd = gap_gradient("eigh"), gap_gradient("svd")
    same = (by_svd - by_eigh).abs().max() / by_eigh.abs().max()

    leaf = f.clone().requires_grad_()
    flipped = torch.linalg.svdvals(leaf @ leaf.mH).flip(-1)
    hinge = (0.3 - (flipped[:, 2] - flipped[:, 3])).relu()
    (dead,) = torch.autograd.grad(hinge.sum(), leaf)
    right = (0.3 - spectrum(factor=leaf).gap(3)).relu()
    (alive,) = torch.autograd.grad(right.sum(), leaf)

    g = torch.Generator().manual_seed(0)
    w = torch.linalg.qr(torch.randn((500, 12, 12), dtype=torch.complex128, generator=g))[0]
    levels = torch.tensor([2.0] * 5 + [1.0] * 7, dtype=torch.float64)
    tied = spectrum(((w * levels) @ w.mH).to(torch.complex64)).values
    apart = torch.cat((tied[:, :5].diff(), tied[:, 5:].diff()), -1).abs() > 1e-9
    norms = [torch.linalg.matrix_norm(gradient).mean() for gradient in (dead, alive)]
    return (
        f"- `svd` and `eigh` gradients of the gap of R > 0 differ by {same:.0e} of the largest "
        f"entry.\n- Flipped, the hinge is its margin to {(hinge - 0.3).abs().max():.0e}; the norm "
        f"of its gradient is {norms[0]:.0e}, of the right one {norms[1]:.0e}.\n"
        f"- {apart.double().mean():.0%} of exactly tied pairs are more than 1e-9 apart in "
        "complex64."
    )


def definitions_and_error() -> str:
    """Return Spearman correlations of each definition with ‖P̂ - P‖²_F of L = 400 snapshots, K =
    5."""
    n, k, matrices, draws, snapshots = 16, 5, 300, 64, 400
    g = torch.Generator().manual_seed(0)

    def gaussian(*shape: int) -> Tensor:
        return torch.randn(shape, dtype=torch.complex128, generator=g)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, dtype=torch.float64, generator=g)

    # K sources over 20 dB in noise over 10 dB, at any power
    signal = 10 ** (2 * uniform(matrices, k)) * 10 ** (uniform(matrices, 1) - 0.5)
    noise = 10 ** uniform(matrices, n) / 10
    values = noise + torch.nn.functional.pad(signal, (0, n - k))
    w = torch.linalg.qr(gaussian(matrices, n, n))[0]
    power = 10 ** (2 * uniform(matrices, 1, 1) - 1)
    r = power * (w * values.unsqueeze(-2)) @ w.mH
    x = torch.linalg.cholesky(r).unsqueeze(1) @ gaussian(matrices, draws, n, snapshots)
    sample = x @ x.mH / snapshots
    eye = torch.eye(n, dtype=torch.complex128)
    truth = spectrum(r)
    difference = spectrum(sample).apply(k, eye) - truth.apply(k, eye).unsqueeze(1)
    error = difference.abs().square().sum((-2, -1)).mean(-1)
    measures = {
        "gap": truth.gap(k),
        "gap / trace": truth.gap(k) / truth.trace,
        "energy": truth.energy(k),
        "ratio": truth.ratio(k),
        "leak": -truth.leak(k),
        "dominance proxy": -dominance_loss(r),
    }
    rows = ["| definition | correlation with a small error | with gap / trace |", "|---|---|---|"]
    share = measures["gap / trace"].numpy()
    for name, measure in measures.items():
        to_error = -spearmanr(measure.numpy(), error.numpy()).statistic
        rows.append(
            f"| {name} | {to_error:.3f} | {spearmanr(measure.numpy(), share).statistic:.2f} |"
        )
    open_border = truth.leak(k) * 2 / snapshots < 0.1
    predicted = (error / (2 * truth.leak(k) / snapshots))[open_border].median()
    rows.append("")
    rows.append(f"Median of error / (2 leak / L), where that is below 0.1: {predicted:.2f}.")
    return "\n".join(rows)


def forty_digits_rates() -> str:
    """Return errors against 40-digit arithmetic: 10 samples of every class, and 200 with a border
    of 1e3 to 1e4 roundoffs."""
    rows = ["| derivative | samples | wrong | worst error | narrow border: wrong | worst |"]
    rows.append("|---" * 6 + "|")
    for dtype in (torch.complex64, torch.complex128):
        roundoff = torch.finfo(dtype).eps / 2
        for kind, backend in (("matrices", "exact"), ("factors", "gram")):
            g = torch.Generator().manual_seed(3)
            drawn = getattr(adversarial, kind)(10, g)
            errors = torch.cat(
                [
                    _errors(adversarial.losses_of(name), x.to(dtype), backend, roundoff)
                    for name, x in drawn.items()
                ]
            )
            row = f"| all, `{backend}`, {str(dtype)[6:]} | {len(errors)} | "
            row += f"{int((errors > adversarial.TOLERANCE).sum())} | {errors.max():.0e} |"
            if kind == "matrices":
                x = forty_digits.near_border(200, roundoff, g)
                narrow = _errors(["subspace"], x.to(dtype), backend, roundoff)
                wrong = int((narrow > adversarial.TOLERANCE).sum())
                row += f" {wrong} of {len(narrow)} | {narrow.max():.0e} |"
            else:
                row += " - | - |"
            rows.append(row)
    return "\n".join(rows)


def _errors(losses: list[str], x: Tensor, backend: str, roundoff: float) -> Tensor:
    """Relative errors, against 40 digits, of all gradients that are judged."""
    basis = adversarial.targets(len(x), torch.Generator().manual_seed(1)).to(x.dtype)
    found = {n: adversarial.gradient(n, x, basis, backend).to(torch.complex128) for n in losses}
    judged = {n: adversarial.counted(n, x, roundoff) for n in losses}
    errors = [torch.zeros(0, dtype=torch.float64)]
    for i in range(len(x)):
        asked = [n for n in losses if judged[n][i]]
        for loss, truth in forty_digits.gradients(x[i], basis[i], asked).items():
            if not adversarial.vanishes(truth[None], x[i : i + 1], loss, roundoff):
                errors.append(adversarial.relative_error(found[loss][i : i + 1], truth[None]))
    return torch.cat(errors)


FACTS: dict[str, Callable[[], str]] = {
    "loading and ties": loading_and_ties,
    "founding claims": founding_claims,
    "definitions and error": definitions_and_error,
    "forty digits": forty_digits_rates,
}
