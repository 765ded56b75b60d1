"""Training and localisation for a RIS; the spectral losses are here for other training loops."""

from typing import TYPE_CHECKING

__all__ = ["eigengap_loss", "guard", "spectrum"]

if TYPE_CHECKING:
    from .spectral import eigengap_loss, guard, spectrum
else:

    def __getattr__(name: str) -> object:
        # only when it is asked for: the search checks configurations without torch
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from . import spectral

        return getattr(spectral, name)
