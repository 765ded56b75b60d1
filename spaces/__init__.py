"""Search spaces: define-by-run functions over plain dicts of dotted names, with their ranges as
data and the presets. Standard library only: they can be read, drawn from and compared anywhere."""

from .changes import Changes, changed
from .presets import BUDGETS, PRESETS, get
from .ranges import Choice, Float, Int, Range, range_from_json, range_to_json
from .space import Space, Trial
