"""What may be tried: define-by-run search spaces over plain dicts of dotted names."""

from .blocks import PARAMETERS
from .presets import PRESETS, get
from .space import Parameter, Space, Trial

__all__ = ["PARAMETERS", "PRESETS", "Parameter", "Space", "Trial", "get"]
