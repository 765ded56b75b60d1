"""The estimators that a network is compared with, in the order in which they are shown."""

BOUND = "crb"
REFERENCE = "lmmse_music"
"""The classical method that a network has to beat."""

ROW_ORDER = (BOUND, REFERENCE, "sml", "lmmse_mvdr", "lmmse_beamformer", "pinv_music")
"""The bound first; estimators that are not listed follow by name."""
