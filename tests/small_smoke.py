"""`python -m search.run` whose preset `smoke` has few scenes to score, for the tests' real run."""

import sys
from dataclasses import replace

import spaces
from search.run import main

SMOKE = spaces.get("smoke")
FEW = {"evaluation.num_scenes": 8, "evaluation.num_test_scenes": 8}
spaces.PRESETS["smoke"] = replace(SMOKE, fixed={**SMOKE.fixed, **FEW})

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
