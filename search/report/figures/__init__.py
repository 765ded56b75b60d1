"""Every figure of the report: a function of a run; it returns a figure, or why there is none."""

from .catalogue import Picture, pictures_of
from .factorial_map import write_map
from .style import FORMATS, rendered, save
