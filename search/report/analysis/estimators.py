"""Estimators that a network is compared with: their order, and their names for a reader."""

from collections.abc import Iterable

from trainer.config import LIMIT_NAMES, REFERENCE, REFINED_NAMES

BOUND = "crb"
LIMIT, LIMIT_BLIND = LIMIT_NAMES
"""Least capped errors of any estimator: of one that knows the SNR but no scale, and of none."""
BOUNDS = (BOUND, LIMIT, LIMIT_BLIND)
"""Rows that are no estimators'."""

LABELS = {
    BOUND: "√CRB (bounds unbiased estimators)",
    LIMIT: "limit (of any estimator)",
    LIMIT_BLIND: "limit, SNR unknown (of any estimator)",
    REFERENCE: "LMMSE-MUSIC",
    "sml": "stochastic ML",
    "lmmse_beamformer": "LMMSE beamformer",
    "lmmse_mvdr": "LMMSE-MVDR",
    "pinv_music": "pseudo-inverse MUSIC",
    **dict.fromkeys(REFINED_NAMES, "best network, refined (as `localise` does)"),
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
