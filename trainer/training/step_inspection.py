"""One step of a training under the magnifying glass: what its batch leads to, tensor by tensor.

For a person who asks why a training diverged. The step is computed again from the weights it
began with, so that what is shown is what happened; no weight changes. Here, and only here, numbers
that are not finite are data.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.covariance import Covariance
from trainer.scenes import Scenes
from trainer.spectral import spectrum

from .loop import TrainingLoop
from .terms import loss_terms

SHOWN = 5
"""Samples whose eigenvalues are shown, and tensors where none is at fault."""


@dataclass(frozen=True)
class BorderEigenvalues:
    """Eigenvalues of one sample's R around the border between signal and noise.

    Attributes:
        sample: its place in the batch.
        num_sources: K, true.
        first: number of the first eigenvalue shown, from 1.
        eigenvalues: λ_first ..., descending; loaded, trace 1 before loading.
        gap: λ_K - λ_{K+1}, in which the loading cancels exactly.
        closest: number i of the two eigenvalues λ_i, λ_{i+1} that are nearest to each other, and
            their difference: where it is 0, eigenvectors have no derivative.
    """

    sample: int
    num_sources: int
    first: int
    eigenvalues: tuple[float, ...]
    gap: float
    closest: tuple[int, float]

    def line(self) -> str:
        """For a person; `|` is the border."""
        words = []
        for place, value in enumerate(self.eigenvalues, self.first):
            words.append(f"λ{place} {value:.9g}" + (" |" if place == self.num_sources else ""))
        shown = " ".join(words)
        place, difference = self.closest
        return (
            f"sample {self.sample}, K = {self.num_sources}: {shown}, gap {self.gap:.3e}; "
            f"closest λ{place} - λ{place + 1} = {difference:.3e}"
        )


@dataclass(frozen=True)
class TensorSummary:
    """One tensor of the step.

    Attributes:
        name: `snapshots`, `R`, `trunk.0.weight`, or `d eigengap / d trunk.0.weight`.
        shape: as it is.
        nonfinite: how many entries are NaN or infinite.
        norm: of all finite entries.
        samples: those of the batch that hold non-finite entries; empty for parameters.
    """

    name: str
    shape: tuple[int, ...]
    nonfinite: int
    norm: float
    samples: tuple[int, ...] = ()

    def line(self) -> str:
        """For a person."""
        where = ""
        if self.samples:
            listed = ", ".join(map(str, self.samples[:8]))
            more = f" and {len(self.samples) - 8} more" if len(self.samples) > 8 else ""
            where = f", in samples {listed}{more}"
        shape = "x".join(map(str, self.shape)) or "scalar"
        return (
            f"{self.name} [{shape}]: {self.nonfinite} of {math.prod(self.shape)} entries not "
            f"finite{where}; norm of the others {self.norm:.6g}"
        )


@dataclass(frozen=True)
class StepInspection:
    """What one step looked like.

    Attributes:
        step: optimiser steps taken before it.
        terms: every loss term, unweighted, and `total`; finite or not.
        tensors: all inputs, R (or its factor F), parameters, and gradients of every term.
        borders: of the samples with non-finite gradients and of those with the smallest gaps.
        note: what could not be computed, and why; empty if nothing.
    """

    step: int
    terms: dict[str, float]
    tensors: tuple[TensorSummary, ...]
    borders: tuple[BorderEigenvalues, ...]
    note: str = ""

    @property
    def offending(self) -> list[TensorSummary]:
        """The tensors that are not finite."""
        return [seen for seen in self.tensors if seen.nonfinite]

    def lines(self) -> list[str]:
        """For a person."""
        said = [f"after {self.step} steps, the next one has", "  loss terms, unweighted"]
        said += [f"    {name} {value!r}" for name, value in self.terms.items()]
        said += ["  eigenvalues around the border"]
        said += [f"    {border.line()}" for border in self.borders] or ["    none"]
        if self.offending:
            said += ["  tensors that are not finite"]
            said += [f"    {seen.line()}" for seen in self.offending]
        else:
            largest = sorted(self.tensors, key=lambda seen: -seen.norm)
            gradients = [seen for seen in largest if seen.name.startswith("d ")]
            said += ["  all tensors are finite; the largest gradients"]
            said += [f"    {seen.line()}" for seen in gradients[:SHOWN]]
        return said + ([f"  {self.note}"] if self.note else [])


def inspect_step(training: TrainingLoop) -> StepInspection:
    """Computes the step of the batch that was drawn last again, and looks at everything."""
    scenes = training.batch
    assert scenes is not None, "a training that has drawn a batch"
    config, network = training.config, training.network
    named = dict(network.named_parameters())
    covariance = network(scenes)
    held = "R" if covariance.factor is None else "F"
    tensors = [_seen(n, getattr(scenes, n), batched=True) for n in ("snapshots", "channel")]
    tensors += [_seen("codes", scenes.codes, batched=True)]
    tensors += [_seen(held, covariance.held, batched=True)]
    tensors += [_seen(name, parameter) for name, parameter in named.items()]
    values: dict[str, Tensor] = {}
    note = ""
    try:
        terms = loss_terms(covariance, scenes, config)
        values = terms.values | {"total": terms.total(config)}
        for term, value in terms.values.items():
            tensors += _gradients(term, value, {held: covariance.held, **named}, held)
    except torch.linalg.LinAlgError as error:
        note = f"the eigensolver gave up: {str(error).splitlines()[0]}"
    bad = [sample for seen in tensors for sample in seen.samples]
    return StepInspection(
        step=training.steps,
        terms={name: float(value.detach()) for name, value in values.items()},
        tensors=tuple(tensors),
        borders=tuple(_borders(covariance, scenes, bad)),
        note=note,
    )


def _gradients(
    term: str, value: Tensor, by: dict[str, Tensor], held: str
) -> Iterable[TensorSummary]:
    if not value.requires_grad:
        return
    found = torch.autograd.grad(value, list(by.values()), retain_graph=True, allow_unused=True)
    for name, gradient in zip(by, found, strict=True):
        if gradient is not None:
            yield _seen(f"d {term} / d {name}", gradient, batched=name == held)


def _seen(name: str, tensor: Tensor, *, batched: bool = False) -> TensorSummary:
    tensor = tensor.detach()
    finite = torch.isfinite(tensor)
    samples: list[int] = []
    if batched:
        samples = (~finite).flatten(1).any(1).nonzero().flatten().tolist()
    wide = torch.where(finite, tensor, 0).abs().double()
    return TensorSummary(
        name, tuple(tensor.shape), int((~finite).sum()), float(wide.norm()), tuple(samples)
    )


def _borders(
    covariance: Covariance, scenes: Scenes, bad: list[int]
) -> Iterable[BorderEigenvalues]:
    """First the samples at fault, then those with the smallest gaps."""
    counts = scenes.sources.num_sources
    with torch.no_grad():
        try:
            solved = spectrum(**covariance.spectral_input())
        except torch.linalg.LinAlgError:
            return
        eigenvalues, gaps = solved.values, solved.gap(counts)
    smallest = torch.where(torch.isfinite(gaps), gaps, torch.inf).argsort().tolist()
    size = eigenvalues.shape[-1]
    for sample in list(dict.fromkeys([*bad, *smallest]))[:SHOWN]:
        known = int(counts[sample])
        first, last = max(1, known - 1), min(size, known + 2)
        own = eigenvalues[sample]
        steps = own[:-1] - own[1:]
        place = int(steps.argmin())
        yield BorderEigenvalues(
            sample=sample,
            num_sources=known,
            first=first,
            eigenvalues=tuple(own[first - 1 : last].tolist()),
            gap=float(gaps[sample]),
            closest=(place + 1, float(steps[place])),
        )
