"""The design of an experiment: networks x regimes x terms, in a TOML file.

    seeds = 5                        training seeds of every arm, after a search of its own
    [set]                            fields of all trainings, beside those of the preset
    [networks.gram]                  network.kind = "gram", ...
    [regimes.correlated]             scene.source_correlation = 0.95
    [terms.none]                     optimizer.learning_rate = [0.003, 0.01, 0.03]
    [terms.count]                    eigengap.definition = "count", eigengap.weight = [0.1, 0.3, 1]

The field of a term with a list is what its search tries, equally many values for every term. The
term `none` is what the others are compared with: it has no loss term, and the value that its
search finds in a network and regime is that of all terms there.
"""

import hashlib
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Self

import spaces
from search.plan import FreshScenes, Rerun, dotted, require_code
from trainer.cli import UsageError
from trainer.config import ConfigError, TrainConfig, did_you_mean, is_reference, require
from trainer.user_code import HASHED, with_hashes

NONE = "none"
"""The term that the others are compared with."""
SELECTS = ("gospa", "capped_error")
"""What an arm's search minimises: GOSPA with K by the best rule, or the capped error, K told."""
MARGINS = {"capped_error": 0.005, "source_number_accuracy": 0.01}
"""Outcomes, and the differences up to which two arms are equivalent."""
VALIDATION_SEED, SCENE_SEED = 4_000_003, 3_000_003
GROUPS = ("networks", "regimes", "terms")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")

Fields = Mapping[str, Any]


class Arm(NamedTuple):
    """A network in a regime, trained with a term."""

    network: str
    regime: str
    term: str

    @property
    def baseline(self) -> "Arm":
        """The arm that it is compared with."""
        return self._replace(term=NONE)

    def __str__(self) -> str:
        return f"{self.network}, {self.regime}, {self.term}"


@dataclass(frozen=True)
class Design:
    """A design, checked: every combination is a training.

    Attributes:
        networks, regimes, terms: fields of the configuration by name; a list in a term is tried.
        snr_db: of validation and test scenes [dB]; effects are means over them.
        validation_scenes, scenes: for each SNR and K, to choose by and to test on.
        select: one of `SELECTS`.
        margins: see `MARGINS`.
        control: `networks`, `terms` and the `gain` in P(K right) that has to be seen in one of
            their cells, or no null counts; empty if there is none.
        fields: of all trainings, beside those of the preset.
        text: of the file.
    """

    networks: Mapping[str, Fields]
    regimes: Mapping[str, Fields]
    terms: Mapping[str, Fields]
    preset: str = "local"
    seeds: int = 5
    scenes: int = 128
    validation_scenes: int = 32
    snr_db: tuple[float, ...] = (-5.0, 0.0)
    select: str = SELECTS[0]
    margins: Mapping[str, float] = field(default_factory=lambda: dict(MARGINS))
    control: Mapping[str, Any] = field(default_factory=dict)
    fields: Fields = field(default_factory=dict)
    text: str = ""

    @classmethod
    def read(cls, path: str) -> Self:
        """Read and check a file; raise ConfigError for one that is no design."""
        try:
            text = Path(path).read_text(encoding="utf-8")
            content = tomllib.loads(text)
        except (OSError, ValueError) as error:
            raise UsageError(f"--design {path} is a TOML file, but: {error}") from None
        try:
            return cls.of(content, text)
        except ConfigError as error:
            raise UsageError(f"--design {path}: {error}") from None

    @classmethod
    def of(cls, content: Mapping[str, Any], text: str = "") -> Self:
        """Return the design that a file's content says; raise ConfigError if it says none."""
        known = {"margins", "set", *GROUPS, *(n for n in cls.__dataclass_fields__ if n != "text")}
        known.remove("fields")
        for name in content:
            hint = did_you_mean(name, known)
            require(name in known, "a design has known entries", f"`{name}`", hint.strip())
        given = dict(content)
        for group in GROUPS:
            table = given.get(group)
            require(
                isinstance(table, dict) and all(isinstance(v, dict) for v in table.values()),
                f"a design has tables [{group}.NAME]",
                repr(table),
                f"Give one for each of the {group}.",
            )
            given[group] = {name: dict(dotted(fields)) for name, fields in given[group].items()}
        given["fields"] = dict(dotted(given.pop("set", {})))
        try:
            given["snr_db"] = tuple(float(snr) for snr in given.get("snr_db", cls.snr_db))
            given["margins"] = {**MARGINS, **given.get("margins", {})}
        except (TypeError, ValueError) as error:
            raise ConfigError(f"snr_db is a list of numbers, margins a table: {error}") from None
        return cls(**given, text=text)

    def __post_init__(self) -> None:
        for group in GROUPS:
            for name in getattr(self, group):
                letters = "Use letters, digits, dashes and underscores."
                require(bool(NAME.fullmatch(name)), f"names of {group} are words", name, letters)
        for name, least in {"seeds": 2, "scenes": 2, "validation_scenes": 2}.items():
            value = getattr(self, name)
            whole = isinstance(value, int) and not isinstance(value, bool)
            require(whole and value >= least, f"{name} >= {least}", repr(value), "Ask for more.")
        require(len(set(self.snr_db)) > 0, "snr_db is not empty", "[]", "Give -5 and 0, say.")
        hint = did_you_mean(str(self.select), SELECTS)
        names = ", ".join(SELECTS)
        require(self.select in SELECTS, f"select is {names}", repr(self.select), hint.strip())
        for name, margin in self.margins.items():
            hint = did_you_mean(name, MARGINS).strip() or f"Those are {', '.join(MARGINS)}."
            require(name in MARGINS, "margins are of outcomes", f"`{name}`", hint)
            positive = isinstance(margin, int | float) and margin > 0
            require(positive, f"margins.{name} > 0", repr(margin), "Give a difference.")
        self._check_terms()
        self._check_control()
        for arm in self.arms(self.terms):
            try:
                for value in self.values(arm.term):
                    require_code(self.rerun(arm, value, seed=0).config)
            except ConfigError as error:
                raise type(error)(f"{arm}: {error}") from None

    def _check_control(self) -> None:
        if not self.control:
            return
        wanted = {"networks", "terms", "gain"}
        rule = f"[control] has {', '.join(sorted(wanted))}"
        require(set(self.control) == wanted, rule, ", ".join(self.control), "Give all of them.")
        for group in ("networks", "terms"):
            for name in self.control[group]:
                known = getattr(self, group)
                hint = did_you_mean(str(name), known).strip()
                require(name in known, f"[control] names {group} of the design", repr(name), hint)
        gain = self.control["gain"]
        positive = isinstance(gain, int | float) and gain > 0
        require(positive, "control.gain > 0", repr(gain), "Ten points are 0.1.")

    def _check_terms(self) -> None:
        require(
            NONE in self.terms and len(self.terms) > 1,
            f"a design has the term `{NONE}` and another",
            ", ".join(self.terms),
            f"Give [terms.{NONE}] the learning rates that are tried without a term.",
        )
        weights = [n for n in self.terms[NONE] if n.startswith(("eigengap.", "loss."))]
        require(not weights, f"[terms.{NONE}] has no loss term", ", ".join(weights), "Drop it.")
        tried = {t: [n for n, v in own.items() if _listed(v)] for t, own in self.terms.items()}
        for term, names in tried.items():
            require(
                len(names) == 1,
                f"[terms.{term}] has one field with a list of values to try",
                ", ".join(names) or "none",
                "Give a list of weights, or of learning rates; one value, too, is a list.",
            )
        counts = {term: len(self.values(term)) for term in self.terms}
        require(
            len(set(counts.values())) == 1 and min(counts.values()) > 0,
            "searches of terms are equally long",
            ", ".join(f"{term}: {count} values" for term, count in counts.items()),
            "Give every term as many values.",
        )

    @property
    def sha256(self) -> str:
        """Hash of the file."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def base(self) -> dict[str, Any]:
        """The fields of all trainings."""
        try:
            fixed = dict(spaces.get(self.preset).fixed)
        except ValueError as error:
            raise ConfigError(str(error)) from None
        snrs = dict.fromkeys(("evaluation.objective_snr_db", "evaluation.report_snr_db"))
        return {**fixed, **self.fields, **dict.fromkeys(snrs, self.snr_db)}

    @property
    def references(self) -> tuple[str, ...]:
        """The user's code that trainings name."""
        groups = (self.networks, self.regimes, self.terms, {"": self.fields})
        named = (own.get(n) for group in groups for own in group.values() for n in HASHED)
        return tuple(dict.fromkeys(str(each) for each in named if is_reference(each)))

    @property
    def validation(self) -> FreshScenes:
        """The scenes by which values and rules are chosen."""
        return FreshScenes(VALIDATION_SEED, self.validation_scenes, self.snr_db)

    @property
    def test(self) -> FreshScenes:
        """The scenes on which effects are measured."""
        return FreshScenes(SCENE_SEED, self.scenes, self.snr_db)

    @property
    def num_trainings(self) -> int:
        """Number of trainings, those of the searches included."""
        return len(self.arms(self.terms)) * (len(self.values(NONE)) + self.seeds)

    def arms(self, terms: Iterable[str]) -> list[Arm]:
        """Return the arms with these terms."""
        return [Arm(n, r, t) for n in self.networks for r in self.regimes for t in terms]

    def values(self, term: str) -> list[dict[str, Any]]:
        """Return the values that the search of a term tries, as changes."""
        ((name, values),) = ((n, v) for n, v in self.terms[term].items() if _listed(v))
        return [{name: value} for value in values]

    def rerun(self, arm: Arm, chosen: Fields, seed: int) -> Rerun:
        """Return a training of an arm; `chosen` are values of searches, of its own and of
        `none`'s."""
        params = {**self.base, **self.networks[arm.network], **self.regimes[arm.regime]}
        fixed = {n: v for n, v in self.terms[arm.term].items() if not _listed(v)}
        changed = with_hashes({**chosen, **fixed})
        params = TrainConfig.from_params(with_hashes(params)).to_params()
        return Rerun.of(f"{arm.network}-{arm.regime}", params, seed, **changed)

    def as_dict(self) -> dict[str, Any]:
        """Return the design as `run.json` holds it."""
        plain = asdict(self) | {"sha256": self.sha256}
        plain |= {"validation_seed": VALIDATION_SEED, "scene_seed": SCENE_SEED}
        del plain["text"]
        return plain


def _listed(value: Any) -> bool:
    return isinstance(value, list | tuple)
