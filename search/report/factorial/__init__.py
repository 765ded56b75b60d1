"""Designs: the effect of every term in each network and regime, tested over the whole family."""

from .effects import PRIMARY, CellEffect, effects, is_design
from .family import judge, verdict
from .summary import LABELS, lost_table, lower_end, map_tables, map_text, sentences
