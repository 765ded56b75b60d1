"""The training loop: a generator of epoch reports that never steps on a number that is not finite.

One fused norm over all gradients and one synchronisation per step decide whether a step may be
taken. Only when they say no is the batch looked at again, term by term and tensor by tensor, and
`Diverged` is raised with what was found, before the optimiser has touched the weights.

`train` prints nothing, writes nothing and is given no callbacks; who wants a checkpoint saves
`EpochReport.state` before asking for the next report.
"""

import math
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trainer.config import ConfigError, TrainConfig
from trainer.covariance import Covariance
from trainer.evaluation import EvaluationRow, evaluate_network, objective, validate
from trainer.failure import Cause, Diverged, Failure
from trainer.networks import build
from trainer.scenes import Scenes, simulate
from trainer.spectral import spectrum

from .checkpoint import UNREADABLE, TrainState
from .terms import loss_terms

CLIP_NORM = 1.0
"""Gradients are scaled down to this norm: low-SNR batches have a heavy tail."""

VALIDATED = ("capped_error", "capped_error_low", "capped_error_high", "success_rate")
"""What an epoch says of the validation scenes."""


@dataclass(frozen=True)
class EpochReport:
    """What one epoch did; plain numbers, all finite, and the state to go on from.

    Attributes:
        epoch, step: epochs and optimiser steps done, from 1.
        losses: mean of every loss term over the epoch, and their weighted `total`.
        gradient_norm: largest total gradient norm of the epoch, before clipping.
        min_eigengap, median_eigengap: of λ_K - λ_{K+1} over the epoch's last batch (trace-1 R,
            true K).
        loading: diagonal loading used, eps · tr(R)/N, mean of the last batch.
        skipped_samples, replaced_samples: by the fallback policy, in the whole epoch.
        learning_rate: of the epoch's last step.
        capped_error, success_rate: on the validation scenes; the first is the objective, and has
            the ends of its 95 % interval over scenes.
        seconds: of this epoch, validation included.
        evaluation: rows on the held-out scenes; only with the last epoch.
        state: what a checkpoint holds.
    """

    epoch: int
    step: int
    losses: dict[str, float]
    gradient_norm: float
    min_eigengap: float
    median_eigengap: float
    loading: float
    skipped_samples: int
    replaced_samples: int
    learning_rate: float
    capped_error: float
    capped_error_low: float
    capped_error_high: float
    success_rate: float
    seconds: float
    evaluation: tuple[EvaluationRow, ...]
    state: TrainState

    def row(self) -> dict[str, Any]:
        """Flat and plain: `loss_<term>` per term, `objective`; without evaluation and state."""
        plain = {
            name: getattr(self, name)
            for name in self.__dataclass_fields__
            if name not in ("losses", "evaluation", "state", *VALIDATED)
        }
        losses = {f"loss_{term}": value for term, value in self.losses.items()}
        validated = {f"validation_{name}": getattr(self, name) for name in VALIDATED}
        return plain | losses | validated | {"objective": self.capped_error}


def train(config: TrainConfig, *, resume: TrainState | None = None) -> Iterator[EpochReport]:
    """Trains a network and yields a report after every epoch.

    Equal configurations give equal reports on the same machine, also across `resume`: training
    scenes are drawn from one generator whose state is part of the checkpoint.

    Raises:
        Diverged: before an optimiser step would be taken on a non-finite loss or gradient.
        ConfigError: if `resume` belongs to another configuration, or to another network's code.
    """
    training = TrainingLoop(config, resolve_device(config.device))
    if resume is not None:
        training.restore(resume)
    yield from training.reports()


class TrainingLoop:
    """The moving parts of one training; all that it depends on is in `state()`."""

    def __init__(self, config: TrainConfig, device: torch.device) -> None:
        self.config = config
        self.device = device
        self.network = initial_network(config).to(device)
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(),
            lr=config.optimizer.learning_rate,
            weight_decay=config.optimizer.weight_decay,
        )
        budget = config.epochs * config.steps_per_epoch
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: 0.55 + 0.45 * math.cos(math.pi * min(step / budget, 1.0))
        )
        self.generator = torch.Generator(device).manual_seed(config.seed + 1)
        self.epoch = 0
        self.steps = 0
        self.batch: Scenes | None = None

    def reports(self) -> Iterator[EpochReport]:
        """What is left of the budget, epoch by epoch."""
        while self.epoch < self.config.epochs:
            started = time.perf_counter()
            self.epoch += 1
            steps = [self.step() for _ in range(self.config.steps_per_epoch)]
            yield self.report(steps[-1][0], [seen for _, seen in steps], started)

    def draw(self) -> Scenes:
        """The next batch; the last one stays in `batch`, for who asks what it led to."""
        config = self.config
        self.batch = simulate(
            config.scene,
            config.batch_size,
            snr_db=(config.snr_min_db, config.snr_max_db),
            generator=self.generator,
            device=self.device,
        )
        return self.batch

    def state(self) -> TrainState:
        return TrainState(
            params=self.config.to_params(),
            epoch=self.epoch,
            step=self.steps,
            network=self.network.state_dict(),
            optimizer=self.optimizer.state_dict(),
            schedule=self.schedule.state_dict(),
            generator=self.generator.get_state(),
        )

    def restore(self, state: TrainState) -> None:
        if state.config != self.config:
            raise ConfigError(
                "a training resumes under the configuration it began with, but the checkpoint has "
                f"{state.config.digest} and this is {self.config.digest}. Start it afresh."
            )
        try:
            self.network.load_state_dict(state.network)
            self.optimizer.load_state_dict(state.optimizer)
            self.schedule.load_state_dict(state.schedule)
            self.generator.set_state(state.generator)
        except UNREADABLE as error:
            reason = " ".join(str(error).split())
            raise ConfigError(
                "a training resumes with the code it began with, but what the checkpoint holds "
                f"does not fit this one's ({reason}). Start it afresh."
            ) from error
        self.epoch, self.steps = state.epoch, state.step

    def step(self) -> tuple[Scenes, dict[str, float]]:
        """One optimiser step; its scenes, and every loss term with `total`, `norm`, `skipped`,
        `replaced`."""
        config = self.config
        scenes = self.draw()
        self.optimizer.zero_grad(set_to_none=True)
        try:
            terms = loss_terms(self.network(scenes), scenes, config)
            total = terms.total(config)
            total.backward()
        except torch.linalg.LinAlgError as error:
            raise self._diverged(scenes, Cause.SPECTRAL_BREAKDOWN, str(error)) from error
        gradients = [p.grad for p in self.network.parameters() if p.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        seen = {
            "total": total,
            **terms.values,
            "norm": norm,
            "skipped": terms.skipped,
            "replaced": terms.replaced,
        }
        # the one synchronisation of the step
        numbers = torch.stack([value.detach().double() for value in seen.values()]).tolist()
        if not all(map(math.isfinite, numbers)):
            raise self._diverged(scenes)
        nn.utils.clip_grads_with_norm_(self.network.parameters(), CLIP_NORM, norm)
        self.optimizer.step()
        self.schedule.step()
        self.steps += 1
        return scenes, dict(zip(seen, numbers, strict=True))

    def report(self, scenes: Scenes, steps: list[dict[str, float]], started: float) -> EpochReport:
        """What the steps of an epoch amount to; `scenes` are those of the last one."""
        config = self.config
        terms = [name for name in steps[0] if name not in ("norm", "skipped", "replaced")]
        with torch.no_grad():
            covariance = self.network(scenes)
            gaps = smallest_gaps(covariance, scenes)
        judged = validate(self.network, config)
        error = objective(judged, config.evaluation.objective_snr_db)
        last = self.epoch == config.epochs
        return EpochReport(
            epoch=self.epoch,
            step=self.steps,
            losses={term: math.fsum(s[term] for s in steps) / len(steps) for term in terms},
            gradient_norm=max(s["norm"] for s in steps),
            min_eigengap=float(gaps.min()),
            median_eigengap=float(gaps.median()),
            loading=float(covariance.shift.mean()),
            skipped_samples=round(math.fsum(s["skipped"] for s in steps)),
            replaced_samples=round(math.fsum(s["replaced"] for s in steps)),
            learning_rate=float(self.schedule.get_last_lr()[0]),
            capped_error=error.mean,
            capped_error_low=error.low,
            capped_error_high=error.high,
            success_rate=math.fsum(row.success_rate or 0.0 for row in judged) / len(judged),
            seconds=time.perf_counter() - started,
            evaluation=evaluate_network(self.network, config).rows if last else (),
            state=self.state(),
        )

    def _diverged(self, scenes: Scenes, cause: Cause | None = None, message: str = "") -> Diverged:
        """Looks at the failing batch again, term by term, and names what was not finite."""
        term, tensor = "total", ""
        if bad := nonfinite_inputs(scenes):
            cause, term, tensor = Cause.NONFINITE_DATA, "input", bad[0]
        elif cause is None:
            cause, term, tensor = self._find_nonfinite(scenes)
        try:
            with torch.no_grad():
                gaps = smallest_gaps(self.network(scenes), scenes)
        except torch.linalg.LinAlgError:
            gaps = torch.empty(0)  # no eigenvalues, so no gap to speak of
        finite = gaps[torch.isfinite(gaps)]
        failure = Failure(
            cause=cause,
            term=term,
            tensor=tensor,
            step=self.steps,
            epoch=self.epoch,
            min_eigengap=float(finite.min()) if len(finite) else None,
            message=message,
        )
        return Diverged(failure)

    def _find_nonfinite(self, scenes: Scenes) -> tuple[Cause, str, str]:
        named = list(self.network.named_parameters())
        terms = loss_terms(self.network(scenes), scenes, self.config).values
        for name, value in terms.items():
            if not torch.isfinite(value):
                return Cause.NONFINITE_LOSS, name, ""
        for name, value in terms.items():
            gradients = torch.autograd.grad(
                value, [p for _, p in named], retain_graph=True, allow_unused=True
            )
            if bad := _nonfinite([n for n, _ in named], gradients):
                return Cause.NONFINITE_GRADIENT, name, bad
        # each term alone is well: what remains is what the parameters have accumulated
        if bad := _nonfinite([n for n, _ in named], [p.grad for _, p in named]):
            return Cause.NONFINITE_GRADIENT, "total", bad
        return Cause.GRADIENT_OVERFLOW, "total", ""


def smallest_gaps(covariance: Covariance, scenes: Scenes) -> Tensor:
    """λ_K - λ_{K+1} at the true K, per scene, by the backend that suits the representation."""
    return spectrum(**covariance.spectral_input()).gap(scenes.sources.num_sources)


def nonfinite_inputs(scenes: Scenes) -> list[str]:
    """Names of the network's inputs that hold a NaN or an infinity."""
    inputs = {name: getattr(scenes, name) for name in ("snapshots", "channel", "codes")}
    return [name for name, value in inputs.items() if not torch.isfinite(value.abs()).all()]


def resolve_device(name: str) -> torch.device:
    """`auto` is CUDA where there is one.

    Raises:
        ConfigError: for any other name than auto, cpu, cuda and cuda:<number>, or a CUDA device
            that is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if re.fullmatch(r"cpu|cuda(:\d+)?", name) is None:
        raise ConfigError(
            f"`device` must be auto, cpu, cuda or cuda:<number>, but got {name!r}. Use auto."
        )
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"`device` {name} needs a CUDA device, but there are {torch.cuda.device_count()}. "
            "Use auto or cpu."
        )
    return device


def initial_network(config: TrainConfig) -> nn.Module:
    """The network that a training begins with, on the CPU; leaves torch's generator as it is."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)  # initial weights only: drawn on the CPU, then moved
        return build(config)


def restore_network(path: Path, device: torch.device) -> tuple[TrainConfig, nn.Module]:
    """The configuration and the trained network of a checkpoint, ready to be evaluated.

    Raises:
        ConfigError: if it is damaged: unreadable, of other sizes, or not finite.
    """
    state = TrainState.load(path, device)
    try:
        config = state.config
        network = build(config).to(device)
        network.load_state_dict(state.network)
    except ConfigError:
        raise
    except UNREADABLE as error:
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"a checkpoint's weights must fit its configuration, but those of {path} do not "
            f"({reason}). Restore it from a copy, or train again."
        ) from error
    wrong = [name for name, p in network.named_parameters() if not torch.isfinite(p).all()]
    if wrong:
        raise ConfigError(
            f"a network's weights must be finite, but `{wrong[0]}` of {path} is not: it is "
            "damaged. Restore it from a copy, or train again."
        )
    return config, network.eval()


def _nonfinite(names: list[str], gradients: Sequence[Tensor | None]) -> str:
    for name, gradient in zip(names, gradients, strict=True):
        if gradient is not None and not torch.isfinite(gradient).all():
            return name
    return ""
