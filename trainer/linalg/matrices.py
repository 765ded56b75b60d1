"""Element-wise and trace operations that treat real and complex tensors alike."""

from torch import Tensor


def real_part(x: Tensor) -> Tensor:
    """Return Re x; `x` itself if it is real."""
    return x.real if x.is_complex() else x


def squared_magnitude(x: Tensor) -> Tensor:
    """Return |x|² element-wise, real; about four times as fast as `x.abs().square()`."""
    return x.real.square() + x.imag.square() if x.is_complex() else x.square()


def squared_norm(x: Tensor) -> Tensor:
    """Return the squared Frobenius norm ‖X‖²_F [*batch] of [*batch, n, k]."""
    return squared_magnitude(x).sum((-2, -1))


def hermitian_part(x: Tensor) -> Tensor:
    """Return (X + Xᴴ) / 2 of [*batch, n, n]."""
    return (x + x.mH) / 2


def inner_product(x: Tensor, y: Tensor) -> Tensor:
    """Return the Frobenius inner product Re tr(Xᴴ Y) [*batch] of two [*batch, n, k]."""
    return real_part(x.conj() * y).sum((-2, -1))
