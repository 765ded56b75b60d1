"""What is measured: panel, channel, phase codes, sources, snapshots; and the grid that is searched."""

from .geometry import Panel, steering_derivatives, steering_vector
from .grid import POINTS_PER_BEAM, SearchGrid, grid_shape, search_grid
from .measurement import Scenes, Sources, respond
from .simulation import EvalScenes, simulate

__all__ = [
    "POINTS_PER_BEAM",
    "EvalScenes",
    "Panel",
    "Scenes",
    "SearchGrid",
    "Sources",
    "grid_shape",
    "respond",
    "search_grid",
    "simulate",
    "steering_derivatives",
    "steering_vector",
]
