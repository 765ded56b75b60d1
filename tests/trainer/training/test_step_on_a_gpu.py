"""A training step on a pretended GPU: no tensor elsewhere, the CPU's numbers, one wait.

The step waits once, for its losses. PyTorch waits by itself for the status of every decomposition
(it has no `eigh` that does not read it), and for `allclose` in the derivative of complex
eigenvectors and singular vectors, a check that it leaves out for tensors of other classes.
"""

from collections import Counter
from dataclasses import replace
from itertools import product

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from tests.pretended_gpu import PretendedGpu, PretendedTensor, Wait
from trainer.config import DEFINITIONS, FAILURE_POLICIES, MARGIN_FIELDS, TrainConfig
from trainer.networks import build_network
from trainer.networks.registry import NETWORKS
from trainer.scenes import EvalScenes
from trainer.spectral import BACKENDS
from trainer.training import TrainingLoop, loss_terms

OWN = {
    "dictionary": {},
    "factor": {"network.rank": 3, "covariance.blend_bound": 0.5},
    "unrolled": {"network.stages": 1, "network.noise_floor": 0.1},
    "gram": {"network.normalisation": "after"},
}
SMALL = {
    "scene.num_horizontal": 4,
    "scene.num_vertical": 3,
    "scene.num_antennas": 4,
    "scene.num_snapshots": 6,
    "network.width": 2,
    "network.depth": 2,
    "batch_size": 3,
    "device": "cpu",
}
THE_READ = Wait("download", "_to_copy", "trainer/training/loop.py:step")
MODES = Wait("status", "_linalg_eigh", "trainer/covariance/backprojection.py:channel_eigenmodes")
COMPONENTS = Wait(
    "status", "_linalg_eigh", "trainer/networks/factor_network.py:principal_components"
)
SPECTRUM = {
    name: Wait("status", f"_linalg_{'svd' if name == 'svd' else 'eigh'}", f"trainer/{where}")
    for name, where in {
        "gram": "spectral/dense_derivatives.py:descending_eigh",
        "exact": "spectral/dense_derivatives.py:descending_eigh",
        "auto": "spectral/dense_derivatives.py:descending_eigh",
        "eigh": "spectral/backends.py:eigh",
        "svd": "spectral/backends.py:svd",
        "masked": "spectral/dense_derivatives.py:descending_eigh",
    }.items()
}
COVERING = [
    ("dictionary", "gap", "auto", "raise"),
    ("factor", "subspace", "gram", "skip_sample"),
    ("factor", "energy", "exact", "proxy"),
    ("unrolled", "leak", "eigh", "raise"),
    ("unrolled", "subspace", "svd", "proxy"),
    ("dictionary", "subspace", "masked", "raise"),
    ("unrolled", "ratio", "auto", "raise"),
    ("gram", "threshold", "exact", "raise"),
    ("factor", "count", "gram", "skip_sample"),
    ("dictionary", None, "auto", "raise"),
]
"""Every network, definition, backend and policy at least once."""


def lawful(network: str, definition: str | None, backend: str) -> bool:
    """Return whether a configuration may have these together."""
    return (backend != "gram" or network == "factor") and (
        backend != "masked" or definition == "subspace"
    )


EVERY = [
    (*case, policy)
    for case in product(NETWORKS, DEFINITIONS, BACKENDS)
    if lawful(*case) and (case[0] != "gram" or case[2] == "auto")
    for policy in FAILURE_POLICIES[:1]
]
"""All but the backends of `gram`, which hands over a dense R as `dictionary` does."""


def config_of(network: str, definition: str | None, backend: str, policy: str) -> TrainConfig:
    term = {}
    if definition is not None:
        term = {
            "eigengap.weight": 0.1,
            "eigengap.definition": definition,
            f"eigengap.{MARGIN_FIELDS[definition]}": 0.5,
            "eigengap.on_failure": policy,
        }
    threshold = {"spectral.deg_thresh": 1e-6} if backend == "masked" else {}
    return TrainConfig.from_params(
        SMALL
        | OWN[network]
        | term
        | threshold
        | {"network.kind": network, "spectral.backend": backend}
    )


def losses_and_gradients(
    config: TrainConfig, device: str
) -> tuple[dict[str, torch.Tensor], list[torch.Tensor]]:
    """Return the terms and gradients of a network's first step on fixed scenes, on the CPU."""
    torch.manual_seed(0)
    network = build_network(config).to(device)
    scenes = EvalScenes(config.scene, 3).batch(range(3), snr_db=0.0, device=device)
    terms = loss_terms(network(scenes), scenes, config)
    terms.total(config).backward()
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    assert all(x.device.type == device for x in [*terms.values.values(), *gradients])
    values = {name: value.detach().cpu() for name, value in terms.values.items()}
    return values, [gradient.cpu() for gradient in gradients]


def check_step(network: str, definition: str | None, backend: str, policy: str) -> None:
    config = config_of(network, definition, backend, policy)
    here = losses_and_gradients(config, "cpu")
    with PretendedGpu() as gpu:
        there = losses_and_gradients(config, "cuda")  # puts constants on the GPU, once
        loop = TrainingLoop(config, torch.device("cuda"))
        gpu.waits.clear()
        loop.step()
        state = loop.optimizer.state_dict()["state"].values()
        moments = [x for each in state for x in each.values() if x.dim() > 0]
    torch.testing.assert_close(there, here, rtol=1e-5, atol=1e-6)
    held = [*loop.network.parameters(), *(p.grad for p in loop.network.parameters()), *moments]
    assert all(isinstance(x, PretendedTensor) for x in held)
    decompositions = [MODES] + [COMPONENTS] * (network == "factor")
    decompositions += [SPECTRUM[backend]] * (definition is not None)
    assert Counter(gpu.waits) == Counter([THE_READ, *decompositions])


@pytest.mark.parametrize(("network", "definition", "backend", "policy"), COVERING)
def test_a_step_stays_on_the_gpu_equals_the_cpus_and_waits_once(
    network, definition, backend, policy
):
    check_step(network, definition, backend, policy)


@pytest.mark.slow
@pytest.mark.parametrize(("network", "definition", "backend", "policy"), EVERY)
def test_every_step_stays_on_the_gpu_equals_the_cpus_and_waits_once(
    network, definition, backend, policy
):
    check_step(network, definition, backend, policy)


def test_the_covering_cases_cover():
    networks, definitions, backends, policies = map(set, zip(*COVERING, strict=True))
    assert networks == set(NETWORKS) == set(OWN)
    assert definitions == {*DEFINITIONS, None}
    assert backends == set(BACKENDS)
    assert policies == set(FAILURE_POLICIES)


@pytest.mark.slow
@pytest.mark.parametrize("network", NETWORKS)
def test_coloured_noise_adds_the_status_of_its_cholesky_decompositions(network):
    config = config_of(network, "gap", "auto", "raise")
    config = replace(config, scene=replace(config.scene, noise_correlation=0.5))
    with PretendedGpu() as gpu:
        TrainingLoop(config, torch.device("cuda")).step()
    added = Counter(w.where for w in gpu.waits if w.operation == "_linalg_check_errors")
    whitened = {"trainer/covariance/backprojection.py:whiten": 1 + (network == "unrolled")}
    assert added == {"trainer/scenes/simulation.py:_assemble": 1} | whitened


def test_a_region_without_room_is_the_same_error_where_it_is_found_by_the_one_read():
    config = config_of("dictionary", "gap", "auto", "raise")
    scene = replace(config.scene, azimuth_max_deg=2.0, elevation_max_deg=2.0)
    with PretendedGpu(), pytest.raises(ValueError, match="3 of 3 scenes had no room for 2"):
        TrainingLoop(replace(config, scene=scene), torch.device("cuda")).step()


@pytest.mark.parametrize(
    ("backend", "definition", "reads"),
    [("eigh", "gap", False), ("svd", "gap", False), ("eigh", "subspace", True),
     ("svd", "subspace", True), ("exact", "subspace", False), ("masked", "subspace", False)],
)  # fmt: skip
def test_native_derivatives_of_complex_vectors_read_a_value(backend, definition, reads):
    """What the pretended GPU cannot see, since PyTorch leaves the check out for its class."""
    config = config_of("dictionary", definition, backend, "raise")
    scenes = EvalScenes(config.scene, 3).batch(range(3), snr_db=0.0)
    terms = loss_terms(build_network(config)(scenes), scenes, config)
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        loss_terms(build_network(config)(scenes), scenes, config).total(config).backward()
    assert terms.values["eigengap"].isfinite()
    assert any(event.name == "aten::allclose" for event in recorded.events()) == reads
