"""A space in a module, as a user may have one in a package."""

from spaces import Space, blocks

SPACE = Space("small", "For tests.", blocks.optimizer)
