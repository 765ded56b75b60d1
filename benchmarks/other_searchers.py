"""Searchers of other libraries behind one protocol, each in an environment of its own.

    python -m venv ENV && ENV/bin/pip install dehb==0.1.2
    python benchmarks/search_anchors.py --library dehb=ENV/bin/python

and so with `smac` (smac==2.4.1), `syne-tune` (syne-tune==0.16.0 huggingface_hub, which its CQR
imports) and `syne-tune-0.13` (syne-tune==0.13.0, the last one with PASHA that was tried).
`search_anchors.py` starts this file with ENV's interpreter and speaks with it in lines of JSON, a
call each: [method, arguments]. It needs nothing of this project and holds no recorded value: a
searcher knows what `report` has told it, no more. It is opened with the space (name -> range, as
`spaces.ranges.range_to_json` writes it), the epochs of a whole training and a seed, and has

- `ask()`: the next trial as [name, values, epochs to train until], or None while it waits; a name
  that was asked before goes on from where it is;
- `runs(trial, values)`: the recorded configuration that is trained in place of the suggested one;
- `report(trial, epoch, value)`: returns `continue`, `pause` or `stop`; smaller is better;
- `failed(trial)`: the training diverged.

All have their library's defaults, one epoch as the least budget, and keep a third at a rung.
"""

import json
import math
import random
import sys
import tempfile
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

WORST = 1.0
"""The largest error there is: told for a divergence where a library wants a number."""
TRIALS = 160
"""Of a search, as SMAC is told: as many as the table has; a quarter of them begin at random."""

Ranges = Mapping[str, Mapping[str, Any]]
Asked = tuple[str, dict[str, Any], int] | None


def length_of(law: Mapping[str, Any]) -> int:
    """Return how many values an integer or a choice has."""
    if law["kind"] == "int":
        return int((law["high"] - law["low"]) // law["step"] + 1)
    return len(law["choices"])


class SyneTune:
    """A scheduler of Syne Tune, whose trials report each epoch. It knows no conditions: values
    that do not apply are suggested, and stay as suggested in what it is told."""

    def __init__(self, kind: str, more: Mapping[str, Any], ranges: Ranges, epochs: int, seed: int):
        from syne_tune import config_space as cs
        from syne_tune.optimizer import baselines

        def law(it: Mapping[str, Any]) -> Any:
            match it["kind"]:
                case "float":
                    return (cs.loguniform if it["log"] else cs.uniform)(it["low"], it["high"])
                case "int":
                    return cs.finrange(it["low"], it["high"], length_of(it), cast_int=True)
                case _:
                    return cs.choice(list(it["choices"]))

        scheduler = getattr(baselines, kind)
        space = {name: law(it) for name, it in ranges.items()}
        self._scheduler = scheduler(space, "error", max_t=epochs, random_seed=seed, **more)
        self._epochs = epochs
        self._trials: list[Any] = []

    def ask(self) -> Asked:
        """Return a new trial, or one that goes on."""
        from syne_tune.backend.trial_status import Trial

        number = len(self._trials)
        before_14 = hasattr(self._scheduler, "_suggest")
        found = self._scheduler.suggest(*[number] * before_14)
        if found is None:
            return None
        if found.spawn_new_trial_id:
            self._trials.append(Trial(number, dict(found.config), datetime.now()))
        else:
            number = int(found.checkpoint_trial_id)
        return str(number), self._trials[number].config, self._epochs

    def runs(self, trial: str, values: dict[str, Any]) -> None:
        """Make the trial's configuration the one that is trained."""
        own = self._trials[int(trial)]
        own.config.update(values)
        self._scheduler.on_trial_add(own)

    def report(self, trial: str, epoch: int, value: float) -> str:
        """Return its decision."""
        own = self._trials[int(trial)]
        decision = self._scheduler.on_trial_result(own, {"error": value, "epoch": epoch}).lower()
        if decision == "stop":
            self._scheduler.on_trial_remove(own)
        return str(decision)

    def failed(self, trial: str) -> None:
        """Tell it of an error."""
        self._scheduler.on_trial_error(self._trials[int(trial)])


class Dehb:
    """DEHB: differential evolution with Hyperband, of points in a unit cube that are each told at
    the end of their budget."""

    def __init__(self, ranges: Ranges, epochs: int, seed: int) -> None:
        from dehb import DEHB

        self._ranges = ranges
        self._dehb = DEHB(
            f=None,
            dimensions=len(ranges),
            min_fidelity=1,
            max_fidelity=epochs,
            eta=3,
            n_workers=1,  # of a pool of its own, which is not used
            seed=seed,
            output_path=tempfile.mkdtemp(),
            log_level="ERROR",
            save_freq="end",
        )
        self._jobs: list[dict[str, Any]] = []

    def ask(self) -> Asked:
        """Return a point and its budget, a trial together."""
        self._jobs.append(self._dehb.ask())
        job = self._jobs[-1]
        point = zip(self._ranges.items(), job["config"], strict=True)
        values = {name: value_at(law, float(place)) for (name, law), place in point}
        return str(len(self._jobs) - 1), values, round(job["fidelity"])

    def runs(self, trial: str, values: dict[str, Any]) -> None:
        """Move the point to the configuration that is trained, in the directions that apply."""
        point = self._jobs[int(trial)]["config"]
        for place, (name, law) in enumerate(self._ranges.items()):
            if name in values:
                point[place] = place_of(law, values[name])

    def report(self, trial: str, epoch: int, value: float) -> str:
        """Tell it the value at the end of the budget."""
        job = self._jobs[int(trial)]
        if epoch < round(job["fidelity"]):
            return "continue"
        self._dehb.tell(job, {"fitness": value, "cost": epoch})
        return "pause"

    def failed(self, trial: str) -> None:
        """Tell it the worst value."""
        job = self._jobs[int(trial)]
        self._dehb.tell(job, {"fitness": WORST, "cost": job["fidelity"]})


class Smac:
    """A facade of SMAC: configurations with a budget that are told at its end, and go on where
    they are asked again."""

    def __init__(self, kind: str, ranges: Ranges, epochs: int, seed: int) -> None:
        import ConfigSpace as cs
        import smac

        self._ranges = ranges
        self._space = cs.ConfigurationSpace(seed=seed)
        for name, law in ranges.items():
            match law["kind"]:
                case "float":
                    bounds = (law["low"], law["high"])
                    self._space.add(cs.Float(name, bounds, log=law["log"]))
                case "int":  # no steps there
                    self._space.add(cs.Integer(name, (0, length_of(law) - 1)))
                case _:
                    self._space.add(cs.Categorical(name, law["choices"]))
        scenario = smac.Scenario(
            self._space,
            deterministic=True,
            min_budget=1,
            max_budget=epochs,
            n_trials=TRIALS,
            seed=seed,
            output_directory=Path(tempfile.mkdtemp()),
        )
        facade = getattr(smac, kind)
        more = {"logging_level": 40, "overwrite": True}
        self._smac = facade(scenario, lambda config, seed, budget: None, **more)
        self._told = smac.runhistory.TrialValue
        self._running: dict[str, Any] = {}

    def ask(self) -> Asked:
        """Return a configuration and its budget."""
        try:
            info = self._smac.ask()
        except StopIteration:
            return None
        trial = str(self._smac.runhistory.get_config_id(info.config))
        self._running[trial] = info
        values = {}
        for name, value in dict(info.config).items():
            law = self._ranges[name]
            plain = value.item() if hasattr(value, "item") else value
            values[name] = law["low"] + law["step"] * plain if law["kind"] == "int" else plain
        return trial, values, round(info.budget)

    def runs(self, trial: str, values: dict[str, Any]) -> None:
        """Make the configuration the one that is trained, in its place in SMAC's history; what
        does not apply stays as suggested."""
        config = self._running[trial].config
        vector = config.get_array().copy()
        for name, value in values.items():
            law = self._ranges[name]
            if law["kind"] == "int":
                value = (value - law["low"]) // law["step"]
            vector[self._space.index_of[name]] = self._space[name].to_vector(value)
        config._vector, config._values = vector, None
        history = self._smac.runhistory
        history._config_ids = {each: number for number, each in history.ids_config.items()}

    def report(self, trial: str, epoch: int, value: float) -> str:
        """Tell it the value at the end of the budget."""
        info = self._running[trial]
        if epoch < round(info.budget):
            return "continue"
        self._smac.tell(info, self._told(cost=value), save=False)
        return "pause"

    def failed(self, trial: str) -> None:
        """Tell it the worst value."""
        self._smac.tell(self._running[trial], self._told(cost=WORST), save=False)


def value_at(law: Mapping[str, Any], place: float) -> Any:
    """Return the value at a place in [0, 1] of a range."""
    if law["kind"] != "float":
        index = min(int(place * length_of(law)), length_of(law) - 1)
        return (
            law["choices"][index] if law["kind"] == "choice" else law["low"] + law["step"] * index
        )
    if law["log"]:
        return law["low"] * (law["high"] / law["low"]) ** place
    return law["low"] + (law["high"] - law["low"]) * place


def place_of(law: Mapping[str, Any], value: Any) -> float:
    """Return a place in [0, 1] at which `value_at` returns the value."""
    if law["kind"] == "float":
        if law["log"]:
            return math.log(value / law["low"]) / math.log(law["high"] / law["low"])
        return (value - law["low"]) / (law["high"] - law["low"])
    if law["kind"] == "choice":
        index = law["choices"].index(value)
    else:
        index = (value - law["low"]) // law["step"]
    return (index + 0.5) / length_of(law)


SEARCHERS: dict[str, Callable[[Ranges, int, int], Any]] = {
    "Syne Tune: ASHA-CQR": partial(SyneTune, "ASHACQR", {"time_attr": "epoch"}),
    "Syne Tune: PASHA": partial(SyneTune, "PASHA", {"resource_attr": "epoch", "mode": "min"}),
    "Syne Tune: ASHA, promotion": partial(
        SyneTune, "ASHA", {"resource_attr": "epoch", "mode": "min", "type": "promotion"}
    ),
    "DEHB": Dehb,
    "SMAC: Hyperband facade": partial(Smac, "HyperbandFacade"),
    "SMAC: multi-fidelity facade": partial(Smac, "MultiFidelityFacade"),
}


def seed_everything(seed: int) -> None:
    """Seed the global generators, from which libraries draw, too."""
    import numpy as np

    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002


def main() -> None:
    """Answer calls until the input ends."""
    answers, sys.stdout = sys.stdout, sys.stderr  # libraries print
    searcher: Any = None
    for line in sys.stdin:
        method, args = json.loads(line)
        answer = None
        if method == "open":
            seed_everything(args[-1])
            searcher = SEARCHERS[args[0]](*args[1:])
        else:
            answer = getattr(searcher, method)(*args)
        print(json.dumps(answer, default=lambda value: value.item()), file=answers, flush=True)


if __name__ == "__main__":
    main()
