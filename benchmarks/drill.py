"""The search's own command line with one more preset, `drill`: trials long enough to be killed.

    python benchmarks/drill.py --preset drill --name x [any flag of `python -m search.run`]

Used by `chaos.py` and by the tests of resuming; the trainer and everything else is the real one.
"""

import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import spaces
from search.run import main

SMOKE = spaces.get("smoke")
spaces.PRESETS["drill"] = replace(
    SMOKE, name="drill", about="For drills.", trials=6, fixed=dict(SMOKE.fixed) | {"epochs": 18}
)

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
