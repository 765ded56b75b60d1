"""Every figure of the report."""

from .catalogue import Picture, pictures_of
from .choices import draw_importances
from .plots import LABELS, short_label
from .style import FORMATS, rendered, save

__all__ = [
    "FORMATS",
    "LABELS",
    "Picture",
    "draw_importances",
    "pictures_of",
    "rendered",
    "save",
    "short_label",
]
