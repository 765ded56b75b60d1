"""The search's own command line with one more preset, `drill`: trials long enough to be killed.

    python benchmarks/drill.py --preset drill --name x [any flag of `python -m search.run`]

Used by `chaos.py`, `spread.py` and the tests of resuming; the trainer and everything else is
real.
"""

import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import spaces
from search.config import SearchConfig
from search.run import declared, main
from search.store import RunStore

SMOKE = spaces.get("smoke")
spaces.PRESETS["drill"] = replace(
    SMOKE, name="drill", about="For drills.", trials=6, fixed=dict(SMOKE.fixed) | {"epochs": 18}
)


def new_run(out: Path, name: str, trials: int, address: str) -> tuple[SearchConfig, RunStore]:
    """A new run of drills on a cluster; trial i depends on (seed, i) alone and runs to its end."""
    plan = SearchConfig(
        "drill", trials, name, str(out), scheduler="none", sampler="random", address=address
    )
    store = RunStore.create(
        out / name,
        parameters=declared(plan.space),
        plan={"search": plan.as_dict(), **plan.searched},
    )
    return plan, store


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
