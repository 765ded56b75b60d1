"""Inspection of one training step: loss terms, eigenvalues, and every tensor and gradient.

It answers why a training diverged. The step is computed again from the weights it began with, and
no weight changes. Here, and only here, numbers that are not finite are data.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.covariance import Covariance
from trainer.scenes import Scenes
from trainer.spectral import spectrum

from .diagnosis import INPUTS
from .loop import TrainingLoop
from .terms import loss_terms

SHOWN = 5
"""Number of samples whose eigenvalues are shown, and of gradients if all are finite."""


@dataclass(frozen=True)
class BorderEigenvalues:
    """Eigenvalues of one sample's R around the border between signal and noise.

    Attributes:
        sample: index in the batch.
        num_sources: true K.
        first: number of the first eigenvalue shown, from 1.
        eigenvalues: λ_first ..., descending; loaded, trace 1 before loading.
        gap: λ_K - λ_{K+1}, in which the loading cancels exactly.
        closest: number i of the two eigenvalues λ_i, λ_{i+1} nearest to each other, and their
            difference: where it is 0, eigenvectors have no derivative.
    """

    sample: int
    num_sources: int
    first: int
    eigenvalues: tuple[float, ...]
    gap: float
    closest: tuple[int, float]

    def line(self) -> str:
        """Format as one line of text; `|` is the border."""
        shown = " ".join(
            f"λ{number} {value:.9g}" + (" |" if number == self.num_sources else "")
            for number, value in enumerate(self.eigenvalues, self.first)
        )
        number, difference = self.closest
        return (
            f"sample {self.sample}, K = {self.num_sources}: {shown}, gap {self.gap:.3e}; "
            f"closest λ{number} - λ{number + 1} = {difference:.3e}"
        )


@dataclass(frozen=True)
class TensorSummary:
    """One tensor of the step, summarised.

    Attributes:
        name: `snapshots`, `R`, `trunk.0.weight`, or `d eigengap / d trunk.0.weight`.
        nonfinite: number of entries that are NaN or infinite.
        norm: of all finite entries.
        samples: of the batch that hold non-finite entries; empty for parameters.
    """

    name: str
    shape: tuple[int, ...]
    nonfinite: int
    norm: float
    samples: tuple[int, ...] = ()

    def line(self) -> str:
        """Format as one line of text."""
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
    """Everything that one step computes.

    Attributes:
        step: optimiser steps taken before it.
        terms: every loss term, unweighted, and `total`; finite or not.
        tensors: all inputs, R (or its factor F), parameters, and gradients of every term.
        borders: of the samples with non-finite gradients and of those with the smallest gaps.
        note: why something could not be computed; empty if everything could.
    """

    step: int
    terms: dict[str, float]
    tensors: tuple[TensorSummary, ...]
    borders: tuple[BorderEigenvalues, ...]
    note: str = ""

    @property
    def offending(self) -> list[TensorSummary]:
        """Tensors that are not finite."""
        return [tensor for tensor in self.tensors if tensor.nonfinite]

    def lines(self) -> list[str]:
        """Format as lines of text."""
        lines = [f"after {self.step} steps, the next one has", "  loss terms, unweighted"]
        lines += [f"    {name} {value!r}" for name, value in self.terms.items()]
        lines += ["  eigenvalues around the border"]
        lines += [f"    {border.line()}" for border in self.borders] or ["    none"]
        if self.offending:
            lines += ["  tensors that are not finite"]
            shown = self.offending
        else:
            lines += ["  all tensors are finite; the largest gradients"]
            gradients = [tensor for tensor in self.tensors if tensor.name.startswith("d ")]
            shown = sorted(gradients, key=lambda tensor: -tensor.norm)[:SHOWN]
        lines += [f"    {tensor.line()}" for tensor in shown]
        return lines + ([f"  {self.note}"] if self.note else [])


def inspect_step(loop: TrainingLoop) -> StepInspection:
    """Compute the step of the batch that was drawn last again, and keep everything."""
    scenes = loop.batch
    assert scenes is not None, "a batch has been drawn"
    config, network = loop.config, loop.network
    named = dict(network.named_parameters())
    covariance = network(scenes)
    held = "R" if covariance.factor is None else "F"
    tensors = [_summary(name, getattr(scenes, name), batched=True) for name in INPUTS]
    tensors += [_summary(held, covariance.held, batched=True)]
    tensors += [_summary(name, parameter) for name, parameter in named.items()]
    values: dict[str, Tensor] = {}
    note = ""
    try:
        terms = loss_terms(covariance, scenes, config)
        values = terms.values | {"total": terms.total(config)}
        for term, value in terms.values.items():
            tensors += _gradients(term, value, {held: covariance.held, **named}, held)
    except torch.linalg.LinAlgError as error:
        note = f"the eigensolver gave up: {str(error).splitlines()[0]}"
    bad = [sample for tensor in tensors for sample in tensor.samples]
    return StepInspection(
        step=loop.steps,
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
            yield _summary(f"d {term} / d {name}", gradient, batched=name == held)


def _summary(name: str, tensor: Tensor, *, batched: bool = False) -> TensorSummary:
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
    """Yield the samples at fault first, then those with the smallest gaps."""
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
        count = int(counts[sample])
        first, last = max(1, count - 1), min(size, count + 2)
        own = eigenvalues[sample]
        differences = own[:-1] - own[1:]
        closest = int(differences.argmin())
        yield BorderEigenvalues(
            sample=sample,
            num_sources=count,
            first=first,
            eigenvalues=tuple(own[first - 1 : last].tolist()),
            gap=float(gaps[sample]),
            closest=(closest + 1, float(differences[closest])),
        )
