"""Training and localisation for a RIS; for other training loops, the spectral losses and a check
that their numbers are finite."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .failure import Diverged, check_finite
    from .spectral import eigengap_loss, guard, spectrum

__all__ = ["Diverged", "check_finite", "eigengap_loss", "guard", "spectrum"]

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        # only when it is asked for: the search checks configurations without torch
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from . import failure

        if hasattr(failure, name):
            return getattr(failure, name)
        from . import spectral

        return getattr(spectral, name)
