"""Estimators that a network is compared with: their order, and their names for a reader."""

from collections.abc import Iterable

BOUND = "crb"
REFERENCE = "lmmse_music"
"""The classical method that a network has to beat."""

LABELS = {
    BOUND: "√CRB (bounds unbiased estimators)",
    REFERENCE: "LMMSE-MUSIC",
    "sml": "stochastic ML",
    "lmmse_mvdr": "LMMSE-MVDR",
    "lmmse_beamformer": "LMMSE beamformer",
    "pinv_music": "pseudo-inverse MUSIC",
}
"""Names in figures, in the order in which estimators are shown."""


def in_order(names: Iterable[str]) -> list[str]:
    """Return the bound, the known estimators, then the others by name; each once."""
    found = set(names)
    known = [name for name in LABELS if name in found]
    return known + sorted(found - set(known))


def short_label(name: str) -> str:
    """Return an estimator's name for where there is little room."""
    return LABELS.get(name, name).partition(" (")[0]
