"""The plan of a search: the command line's request, checked once, frozen and written down.

`SearchConfig` is what `run.json` holds and what `--resume` reads back, so that a resumed search
needs no other flag. It knows neither Ray nor torch.
"""

import dataclasses
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import spaces
from trainer.config import TrainConfig, is_reference, require, require_choice
from trainer.own_trainer import OwnTrainer, split_objective
from trainer.user_code import (
    HASHED,
    Source,
    is_file,
    load,
    package_path,
    require_unchanged,
    source_of,
    with_hashes,
)

from .changes import (
    OUR_NAMES,
    Config,
    Names,
    changed_space,
    parse_changes,
    require_code,
    require_space,
)

RUNS = "runs"
"""The default folder of runs."""
SEEDS = 2**31
"""Upper limit of seeds, exclusive: samplers take 32 bits."""
SCHEDULERS = ("asha", "hyperband", "median", "none")
SAMPLERS = ("tpe", "gp", "qmc", "random", "cmaes")
GUARD = ("on", "off")
LOGS = ("tensorboard", "mlflow", "wandb")
"""Values of `--log`; their libraries are in `requirements.py`."""
TERM_WEIGHT = "eigengap.weight"
OBJECTIVES = ("capped_error", "cost")
"""Quantities to minimise: the mean capped error on validation scenes, and seconds per epoch."""


FIELD_RULES: dict[str, tuple[Callable[[Any], object], str, str]] = {
    "trials": (lambda n: n >= 1, "--trials >= 1", "Ask for one trial or more."),
    "epochs": (lambda n: n >= 1, "--epochs >= 1", "Leave it out for the preset's."),
    "max_concurrent": (
        lambda n: n >= 1,
        "--max-concurrent >= 1",
        "Leave it out to use all resources.",
    ),
    "seed": (lambda n: 0 <= n < SEEDS, "0 <= --seed < 2**31", "Use a count from 0."),
    "name": (
        re.compile(r"[\w][\w.-]*").fullmatch,
        "--name is letters, digits, dots, dashes and underscores",
        "It becomes a folder's name.",
    ),
    "trial_timeout_s": (
        lambda s: 0 < s < math.inf,
        "0 < --trial-timeout < inf",
        "It is in seconds; 1e9 is never.",
    ),
    "cpus_per_trial": (
        lambda n: 0 < n < math.inf,
        "--cpus-per-trial > 0, and finite,",
        "Fractions are allowed, e.g. 0.5.",
    ),
    "gpus_per_trial": (
        lambda n: n == 0 or 1e-4 <= n <= 1 or (1 < n < math.inf and n % 1 == 0),
        "--gpus-per-trial is 0, a fraction from 0.0001 to 1, or whole,",
        "0 trains on the CPU; a fraction shares one GPU.",
    ),
}
"""For each field: a predicate, the rule in words and the remedy; None passes."""


def objective_window(epochs: int) -> int:
    """Return the number of last epochs that a trial's objective is averaged over: a fifth of the
    budget, at least two (the first epoch alone has one).

    The validation error of one epoch scatters by more than good trials differ, and the best of
    many trials compared on one epoch is the luckiest.
    """
    return max(2, epochs // 5)


@dataclass(frozen=True)
class SearchConfig:
    """The plan of a search.

    Attributes:
        preset: a name in `spaces.PRESETS`, or the name of the space that `space_from` names.
        budget: one of `spaces.BUDGETS`, of the preset.
        trials: total number of trials.
        name: of the run, a folder below `out`.
        out: folder of runs.
        seed: of the sampler and of every training: trials differ in their parameters only.
        epochs: budget of a trial, as `epochs=N` in `settings`; None is the preset's.
        settings, ranges, choices: changes of the preset: `NAME=VALUE`, `NAME=LOW:HIGH[:log]` and
            `NAME=a,b`; of a name that is given twice, the last.
        space_from: reference of a user's space, `file.py:name` or `module:name`, or None.
        trainable: reference of a user's trainer in place of ours, or None.
        objective: a number of its reports, `NAME[:min|max]`; None with our trainer.
        code: SHA-256 of each user's code by its reference; what is missing is looked up.
        max_concurrent: trials at a time; None is as many as the resources allow.
        cpus_per_trial, gpus_per_trial: may be fractions; None GPUs is a quarter where there is a
            GPU, and none elsewhere.
        scheduler: one of `SCHEDULERS`, explained in `early_stopping.py`.
        sampler: one of `SAMPLERS`, explained in `search/suggest/samplers.py`.
        objectives: the name of the objective, and perhaps `cost`.
        guard: on, if a trial that is above LMMSE-MUSIC at a reported SNR ranks behind all others.
        trial_timeout_s: a trial that reports nothing for so long is ended.
        start_from: path of the model whose weights every trial begins with, or None; `settings`
            have its network and SHA-256.
        warm_start: path of the run whose trials the sampler is told first, or None.
        address: of a running Ray cluster, or None (or "local") for a local Ray.
        log: those of `LOGS` that every trial is logged to, too; `("none",)` is none of them.
        references: further code of the user's, by reference, that trainings beside the space name.
    """

    preset: str
    trials: int
    name: str
    out: str = RUNS
    seed: int = 0
    epochs: int | None = None
    settings: tuple[str, ...] = ()
    ranges: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    space_from: str | None = None
    trainable: str | None = None
    objective: str | None = None
    code: Mapping[str, str] = field(default_factory=dict)
    max_concurrent: int | None = None
    cpus_per_trial: float = 1.0
    gpus_per_trial: float | None = None
    scheduler: str = "asha"
    sampler: str = "tpe"
    objectives: tuple[str, ...] = OBJECTIVES[:1]
    guard: str = "on"
    trial_timeout_s: float = 1800.0
    budget: str = "whole"
    start_from: str | None = None
    warm_start: str | None = None
    address: str | None = None
    log: tuple[str, ...] = ()
    references: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require_choice("--scheduler", self.scheduler, SCHEDULERS)
        require_choice("--sampler", self.sampler, SAMPLERS)
        require_choice("--guard", self.guard, GUARD)
        for name in ("objectives", "settings", "ranges", "choices", "log", "references"):
            object.__setattr__(self, name, tuple(getattr(self, name)))  # JSON has lists only
        if self.address == "local":  # so that a run that had a cluster can go on without one
            object.__setattr__(self, "address", None)
        log = () if self.log == ("none",) else tuple(dict.fromkeys(self.log))
        object.__setattr__(self, "log", log)
        for name in self.log:
            require_choice("--log", name, LOGS)
        own = self.trainable is not None
        require(
            own or self.objective is None,
            "--objective is that of a --trainable",
            str(self.objective),
            "Leave it out.",
        )
        require(
            not own or self.space_from is not None,
            "--trainable has a --space of its own",
            "none",
            "Name one, as my_space.py:space.",
        )
        require(
            not own or self.objective is not None,
            "--trainable has an --objective",
            "none",
            "Name a number of its reports, as --objective loss or accuracy:max.",
        )
        name, _ = split_objective(self.objective or OBJECTIVES[0])
        if self.objectives[:1] == OBJECTIVES[:1]:
            object.__setattr__(self, "objectives", (name, *self.objectives[1:]))
        objectives = ",".join(self.objectives)
        require(
            self.objectives in ((name,), (name, OBJECTIVES[1])),
            f"--objectives is {name} or {name},cost",
            objectives,
            "The error comes first: it is what the scheduler compares.",
        )
        one = self.sampler != "cmaes" or len(self.objectives) == 1
        require(one, "--sampler cmaes has one objective", objectives, "Use tpe for two.")
        for name, (holds, rule, remedy) in FIELD_RULES.items():
            value = getattr(self, name)
            require(value is None or bool(holds(value)), rule, f"{value!r}", remedy)
        epochs = self.changes.values.get("epochs", self.epochs)
        same = self.epochs in (None, epochs)
        require(same, "--epochs is --set epochs", f"{self.epochs}, {epochs}", "Give one of them.")
        # the space first: it refuses what cannot be searched
        code = {one: source.sha256 for one, source in self.sources.items()} | {
            one: self.code[one] for one in self.sources.keys() & self.code.keys()
        }
        object.__setattr__(self, "code", code)
        if self.own_trainer is not None:
            self.own_trainer.check()
            return
        for drawn in self.space.branches():
            require_code(self.train_config(drawn))

    def _source(self, reference: str) -> Source:
        known = self.code.get(reference)
        return source_of(reference) if known is None else require_unchanged(reference, known)

    @cached_property
    def sources(self) -> dict[str, Source]:
        """The user's code by its reference; raises CodeError if it is not as it was in `code`."""
        used = [each for each in (self.space_from, self.trainable) if each is not None]
        used += self.references
        for drawn in (self.fixed, *self.space.branches()):
            used += [drawn[name] for name in HASHED if is_reference(drawn.get(name))]
        return {reference: self._source(reference) for reference in used}

    @property
    def code_texts(self) -> dict[str, Source]:
        """The sources of the user's files by their path, for workers."""
        return {
            reference.rpartition(":")[0]: source
            for reference, source in self.sources.items()
            if is_file(reference)
        }

    @property
    def code_modules(self) -> list[str]:
        """Paths of the user's modules, packages whole, to send to the workers of a cluster: those
        that are searched, and those that are imported beside a file."""
        names = {name for one in self.sources.values() for name, _ in one.modules}
        modules = {name.partition("/")[0].removesuffix(".py") for name in names}
        return sorted({path for module in modules if (path := package_path(module))})

    @property
    def own_trainer(self) -> OwnTrainer | None:
        """The user's trainer; None for ours."""
        if self.trainable is None or self.objective is None:
            return None
        return OwnTrainer(self.trainable, self.code.get(self.trainable), self.objective)

    @cached_property
    def names(self) -> Names:
        """Meaning of the names of the configurations."""
        return OUR_NAMES if self.trainable is None else Names.of_own_trainer(self.base)

    @cached_property
    def base(self) -> spaces.Space:
        """The preset, or the user's space, without changes."""
        if self.space_from is None:
            return spaces.get(self.preset, self.budget)
        self._source(self.space_from)
        space = load(self.space_from)
        return require_space(space, self.space_from, own=self.trainable is not None)

    @cached_property
    def changes(self) -> spaces.Changes:
        """The changes of the space."""
        epochs = () if self.epochs is None else (f"epochs={self.epochs}",)
        settings = (*epochs, *self.settings)
        return parse_changes(self.base, settings, self.ranges, self.choices, self.names)

    @cached_property
    def space(self) -> spaces.Space:
        """The search space, with the changes."""
        return changed_space(self.base, self.changes, self.names)

    @property
    def fixed(self) -> dict[str, Any]:
        """The configuration fields that all trials share, except the seed."""
        return dict(self.space.fixed)

    @property
    def space_json(self) -> dict[str, Any]:
        """The search space in `run.json`: `space` and `fixed`, which are equal exactly if two
        searches compare, and the ranges of `space` again as data, in `ranges`."""
        ranges = self.space.ranges()
        content = {
            "space": {name: str(values) for name, values in ranges.items()},
            "ranges": {name: spaces.range_to_json(values) for name, values in ranges.items()},
            "fixed": self.fixed | dict(self.changes.values),
        }
        plain: dict[str, Any] = json.loads(json.dumps(content))
        return plain

    @property
    def minutes(self) -> float:
        """The estimated duration, scaled from the preset's by trials and the work of each."""
        own, ours = (
            self.names.work(self.names.config(space.fixed)) for space in (self.base, self.space)
        )
        return self.space.minutes * ours / own * self.trials / self.space.trials

    def config(self, drawn: Mapping[str, Any]) -> Config:
        """Return a trial's configuration from the fixed fields, the seed and the drawn values;
        raise ConfigError if they break a rule."""
        return self.names.config(self._params(drawn))

    def train_config(self, drawn: Mapping[str, Any]) -> TrainConfig:
        """Return the same as a configuration of our trainer."""
        return TrainConfig.from_params(self._params(drawn))

    def _params(self, drawn: Mapping[str, Any]) -> dict[str, Any]:
        return with_hashes({**self.fixed, "seed": self.seed, **drawn}, self.code)

    @cached_property
    def _asks_of_term(self) -> bool:
        return TERM_WEIGHT in self.space.parameters()

    def spares(self, params: Mapping[str, Any]) -> bool:
        """Return whether early stopping spares the best trials with such parameters: they have an
        eigengap term, and the space searches it."""
        return self._asks_of_term and (params.get(TERM_WEIGHT) or 0.0) > 0

    @property
    def template(self) -> TrainConfig:
        """The configuration that all trials of our trainer share: scene, budget, evaluation."""
        return self.train_config({})

    def as_dict(self) -> dict[str, Any]:
        """Return the plan as `run.json` holds it; `SearchConfig(**plan)` reads it back."""
        return dataclasses.asdict(self)
