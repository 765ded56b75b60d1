"""The measurement: panel, channel, phase codes, sources, snapshots; and the search grid.

`simulate` draws scenes, `EvalScenes` gives fixed ones by number, `load_scenes` reads recorded
ones; all are `Scenes`. Angles are in radians, ranges in metres; batch axes lead.
"""

from .geometry import Panel, steering_derivatives, steering_vector
from .grid import POINTS_PER_BEAM, SearchGrid, grid_shape, search_grid
from .measurement import Scenes, Sources, has_unit_modulus, respond
from .placement import far_apart, require_placed
from .recorded import load_scenes, origin_note, save_scenes, scenes_of_arrays
from .recorded_arrays import broken_part, require_scale
from .recorded_panel import require_reflection
from .simulation import EvalScenes, simulate
