"""The training loop: a generator of epoch reports that never steps on a number that is not finite.

One fused norm over all gradients and one read per step, of the losses, decide whether a step may
be taken: on a GPU the host waits for nothing else but the status of decompositions. Only if it may
not is the batch computed again, term by term, and `Diverged` raised with what was found, before
the optimiser has touched the weights.

`train` prints nothing, writes nothing and takes no callbacks. To keep a checkpoint, save
`EpochReport.state` before asking for the next report.
"""

import math
import re
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import nn

from trainer.config import ConfigError, TrainConfig
from trainer.evaluation import (
    EvaluationRow,
    Margin,
    evaluate_network,
    margin_over_reference,
    objective,
    validate,
)
from trainer.failure import Diverged
from trainer.networks import build_network
from trainer.scenes import Scenes, require_placed, simulate
from trainer.user_code import no_exit

from .checkpoint import UNREADABLE, TrainState
from .diagnosis import diagnose, eigengaps, require_finite_output
from .start import load_start
from .terms import BUILT_IN, COUNTED, loss_terms

CLIP_NORM = 1.0
"""Gradients are scaled down to this norm: low-SNR batches have a heavy tail."""

VALIDATED = ("capped_error", "capped_error_low", "capped_error_high", "success_rate")
"""Fields of a report that are measured on the validation scenes."""


@dataclass(frozen=True)
class EpochReport:
    """Results of one epoch, plain and finite numbers, and the state to go on from.

    Attributes:
        epoch, step: epochs and optimiser steps done, from 1.
        losses: mean of every loss term over the epoch, and their weighted `total`.
        gradient_norm: largest total gradient norm of the epoch, before clipping.
        min_eigengap, median_eigengap: of λ_K - λ_{K+1} over the epoch's last batch (trace-1 R,
            true K).
        loading: diagonal loading used, eps · tr(R)/N, mean of the last batch.
        skipped_samples, replaced_samples: by the fallback policy, in the whole epoch.
        learning_rate: of the epoch's last step.
        capped_error, success_rate: on the validation scenes. The first is the objective, with the
            ends of its 95 % interval over scenes.
        seconds: of this epoch, validation included.
        evaluation: rows on the held-out scenes; only with the last epoch.
        state: what a checkpoint holds.
        margin: over LMMSE-MUSIC on the validation scenes; only with the last epoch.
        scene_errors: the capped error by validation scene, mean over SNRs and K, in an order that
            all networks share.
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
    margin: Margin | None = None
    scene_errors: tuple[float, ...] = ()

    def row(self) -> dict[str, Any]:
        """Return a flat row: `loss_<term>` (`loss_own` for a user's), `validation_<name>`,
        `objective`, and the rest.

        It lacks `evaluation` and `state`, has `guard_<name>` of a margin, and `validation_scenes`,
        the errors by scene to four decimals.
        """
        apart = ("losses", "evaluation", "state", "margin", "scene_errors", *VALIDATED)
        plain = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in apart}
        losses = {
            f"loss_{term if term in BUILT_IN else 'own'}": value
            for term, value in self.losses.items()
        }
        validated = {f"validation_{name}": getattr(self, name) for name in VALIDATED}
        margin = {} if self.margin is None else asdict(self.margin)
        guard = {f"guard_{name}": value for name, value in margin.items()}
        scenes = [round(error, 4) for error in self.scene_errors]
        more = {"validation_scenes": scenes} if scenes else {}
        return plain | losses | validated | guard | more | {"objective": self.capped_error}


def train(config: TrainConfig, *, resume: TrainState | None = None) -> Iterator[EpochReport]:
    """Train a network and yield a report after every epoch.

    Equal configurations give equal reports on the same machine, also across `resume`: training
    scenes are drawn from one generator whose state is part of the checkpoint.

    Raises:
        Diverged: before an optimiser step would be taken on a non-finite loss or gradient, or a
            network with an output that is not finite would be reported.
        ConfigError: if `resume` belongs to another configuration, or to another network's code.
    """
    loop = TrainingLoop(config, resolve_device(config.device))
    if resume is not None:
        loop.restore(resume)
    yield from loop.reports()


class TrainingLoop:
    """Network, optimiser, schedule and generator of a training; `state()` holds all of them.

    Attributes:
        epoch: begun, from 1; 0 before the first.
        steps: taken by the optimiser.
        batch: scenes drawn last; None before the first.
    """

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
        """Train for what is left of the budget; yield a report after every epoch."""
        while self.epoch < self.config.epochs:
            started = time.perf_counter()
            self.epoch += 1
            self.network.train()
            steps = [self.step() for _ in range(self.config.steps_per_epoch)]
            try:
                with require_finite_output(self.network, step=self.steps, epoch=self.epoch):
                    report = self._report(steps, started)
            except torch.linalg.LinAlgError as error:
                assert self.batch is not None, "an epoch has at least one step"
                raise self._diverged(self.batch, error) from error
            yield report

    def draw(self) -> Scenes:
        """Draw the next batch; it stays in `batch`."""
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
        """Return what a checkpoint holds; its tensors are those in use."""
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
        """Go on from a checkpoint.

        Raises:
            ConfigError: if it belongs to another configuration, or to another network's code.
        """
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

    @no_exit()
    def step(self) -> dict[str, float]:
        """Take one optimiser step.

        Returns:
            Every loss term, their weighted `total`, the gradients' `norm`, and how many samples
            were `skipped` and `replaced`.

        Raises:
            Diverged: if one of these numbers is not finite; no weight has changed then.
        """
        config = self.config
        scenes = self.draw()
        self.optimizer.zero_grad(set_to_none=True)
        try:
            terms = loss_terms(self.network(scenes), scenes, config)
            total = terms.total(config)
            total.backward()
        except torch.linalg.LinAlgError as error:
            raise self._diverged(scenes, error) from error
        gradients = [p.grad for p in self.network.parameters() if p.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        counted = dict(zip(COUNTED, (norm, terms.skipped, terms.replaced), strict=True))
        values = {"total": total, **terms.values, **counted}
        # the one read of the step: on a GPU, the host waits here
        numbers = torch.stack([value.detach().double() for value in values.values()]).tolist()
        if not all(map(math.isfinite, numbers)):
            raise self._diverged(scenes)
        nn.utils.clip_grads_with_norm_(self.network.parameters(), CLIP_NORM, norm)
        self.optimizer.step()
        self.schedule.step()
        self.steps += 1
        return dict(zip(values, numbers, strict=True))

    @no_exit()
    def _report(self, steps: list[dict[str, float]], started: float) -> EpochReport:
        """Report the epoch that has just ended; raise LinAlgError if no eigenvalues are found."""
        config, scenes = self.config, self.batch
        assert scenes is not None, "an epoch has at least one step"
        terms = [name for name in steps[0] if name not in COUNTED]
        self.network.eval()  # a user's may have dropout, or count batches
        with torch.no_grad():
            covariance = self.network(scenes)
            gaps = eigengaps(covariance, scenes)
        if not bool(torch.isfinite(gaps).all()):
            raise torch.linalg.LinAlgError("Eigenvalues of a finite covariance were not finite.")
        validation = validate(self.network, config)
        error = objective(validation.rows, config.evaluation.objective_snr_db)
        success_rates = [row.success_rate or 0.0 for row in validation.rows]
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
            success_rate=math.fsum(success_rates) / len(success_rates),
            seconds=time.perf_counter() - started,
            evaluation=evaluate_network(self.network, config).rows if last else (),
            state=self.state(),
            margin=margin_over_reference(self.network, config) if last else None,
            scene_errors=validation.scenes.means(),
        )

    def _diverged(
        self, scenes: Scenes, breakdown: torch.linalg.LinAlgError | None = None
    ) -> Diverged:
        require_placed(self.config.scene, scenes.sources.azimuth)
        position = {"step": self.steps, "epoch": self.epoch}
        return Diverged(
            diagnose(self.network, scenes, self.config, **position, breakdown=breakdown)
        )


def resolve_device(name: str) -> torch.device:
    """Return the device of that name; `auto` is CUDA where there is one.

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
    """Return the network that a training begins with, on the CPU; torch's generator is kept.

    Raises:
        ConfigError: if it is to begin with weights that cannot be read or do not fit.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)  # initial weights only: drawn on the CPU, then moved
        network = build_network(config)
    load_start(network, config)
    return network
