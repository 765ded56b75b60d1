"""The presets of `python -m search.run --preset`, each with its purpose, budget and anchors.

The scene of `smoke`, `local`, `eigengap` and `spectral` is the small one (6x6 panel, 12 antennas,
1 or 2 sources), hard enough that stochastic maximum likelihood fails at -10 dB and easy enough to
be won; `full` is the 12x12 panel with up to 5 sources, meant for GPUs.
"""

import difflib
from dataclasses import replace
from typing import Any

from . import blocks
from .space import Space, Trial

OFF: dict[str, Any] = {"eigengap.term": "off"}
FOUNDING: dict[str, Any] = {
    "eigengap.term": "on",
    "eigengap.weight": 0.1,
    "eigengap.definition": "gap",
    "eigengap.margin": 0.03,
}
"""The loss as first proposed: gap margin 0.03, singular values, eps 1e-4."""

DICTIONARY: dict[str, Any] = {
    "network.kind": "dictionary",
    "network.width": 32,
    "network.depth": 3,
    "optimizer.learning_rate": 1e-2,
}
UNROLLED: dict[str, Any] = DICTIONARY | {"network.kind": "unrolled", "network.stages": 2}
FACTOR: dict[str, Any] = {
    "network.kind": "factor",
    "network.width": 32,
    "network.depth": 3,
    "network.rank": 8,
    "covariance.blend_bound": 0.3,
    "optimizer.learning_rate": 1e-2,
}

SUBSPACE: dict[str, Any] = {
    "eigengap.term": "on",
    "eps_psd": 1e-2,
    "eigengap.weight": 0.1,
    "eigengap.margin_subspace": 0.1,
}

EVERYTHING: tuple[dict[str, Any], ...] = (
    DICTIONARY | OFF | {"eps_psd": 1e-4},
    UNROLLED | OFF | {"eps_psd": 1e-4},
    UNROLLED
    | blocks.ACTING["gap"]
    | {"eigengap.term": "on", "eps_psd": 1e-4, "spectral.backend@unrolled.values": "exact"},
    DICTIONARY | FOUNDING | {"eps_psd": 1e-4, "spectral.backend@dictionary.values": "svd"},
    FACTOR | FOUNDING | {"eps_psd": 1e-4, "spectral.backend@factor.values": "gram"},
)
"""Anchors of the spaces over all groups; the third is the second with a term that acts. Those with
a term come last, since early stopping spares the first two of them."""

LOCAL_SCENE: dict[str, Any] = {
    "scene.num_horizontal": 6,
    "scene.num_vertical": 6,
    "scene.num_antennas": 12,
    "scene.num_snapshots": 16,
    "scene.max_sources": 2,
    "scene.range_min_m": 0.5,
    "scene.range_max_m": 3.0,
    "snr_min_db": -10.0,
    "snr_max_db": 4.0,
}
FULL_SCENE: dict[str, Any] = LOCAL_SCENE | {
    "scene.num_horizontal": 12,
    "scene.num_vertical": 12,
    "scene.num_antennas": 16,
    "scene.max_sources": 5,
    "scene.range_max_m": 10.0,
    "snr_max_db": 10.0,
}
EVERY_SNR: dict[str, Any] = {
    "snr_min_db": -15.0,
    "snr_max_db": 20.0,
    "evaluation.refinement": "judged",
}
"""For networks that are to be used at any SNR: a receiver does not choose its own."""
LOCAL_BUDGET: dict[str, Any] = {"epochs": 10, "steps_per_epoch": 20, "batch_size": 64}


def everything(
    trial: Trial, *, widths: tuple[int, int] = (16, 48), most_stages: int = 2
) -> dict[str, Any]:
    """Draw all groups: network, optimiser, loading, eigengap and backend."""
    drawn = blocks.network(trial, widths=widths, most_stages=most_stages)
    drawn |= blocks.optimizer(trial) | blocks.loading(trial) | blocks.eigengap(trial)
    kind, definition = drawn["network.kind"], drawn.get("eigengap.definition")
    return drawn | blocks.spectral(trial, kind=kind, definition=definition)


def everything_wide(trial: Trial) -> dict[str, Any]:
    """Draw all groups, with the wider and deeper networks that a GPU and five sources ask for."""
    return everything(trial, widths=(32, 96), most_stages=4)


def loss_only(trial: Trial) -> dict[str, Any]:
    """Draw loading and eigengap; the network stays the dictionary, the backend `auto`."""
    return blocks.loading(trial) | blocks.eigengap(trial)


def backends_only(trial: Trial) -> dict[str, Any]:
    """Draw the loading and either no term or the subspace loss, where backends differ, with its
    backend."""
    kind = trial.suggest_categorical("network.kind", ("dictionary", "factor"))
    drawn: dict[str, Any] = {"network.kind": kind}
    if kind == "factor":
        drawn |= {"network.rank": 8, "covariance.blend_bound": 0.3}
    drawn |= blocks.loading(trial)
    if trial.suggest_categorical("eigengap.term", ("on", "off")) == "off":
        return drawn | {"eigengap.weight": 0.0}
    drawn |= blocks.weighted(trial, "subspace") | {"eigengap.definition": "subspace"}
    return drawn | blocks.spectral(trial, kind=kind, definition="subspace")


def small(trial: Trial) -> dict[str, Any]:
    """Draw the learning rate and the eigengap with every backend that a dense R allows."""
    drawn = blocks.optimizer(trial) | blocks.eigengap(trial)
    definition = drawn.get("eigengap.definition")
    return drawn | blocks.spectral(trial, kind="dictionary", definition=definition)


PRESETS: dict[str, Space] = {
    space.name: space
    for space in (
        Space(
            name="smoke",
            about="Does everything work here? Four short trainings; the numbers mean nothing.",
            suggest=small,
            anchors=(
                OFF | {"optimizer.learning_rate": 1e-2},
                FOUNDING
                | {"optimizer.learning_rate": 1e-2, "spectral.backend@dictionary.values": "svd"},
            ),
            fixed=LOCAL_SCENE
            | {
                "epochs": 3,
                "steps_per_epoch": 4,
                "batch_size": 32,
                "network.width": 16,
                "evaluation.num_scenes": 16,
                "evaluation.num_test_scenes": 32,
                "evaluation.report_snr_db": (-10.0, -5.0, 0.0, 10.0),
            },
            trials=4,
            minutes=1.0,
        ),
        Space(
            name="local",
            about="The whole search on two cores, small scene, in five minutes.",
            suggest=everything,
            anchors=EVERYTHING,
            fixed=LOCAL_SCENE | LOCAL_BUDGET | EVERY_SNR,
            trials=12,
            minutes=5.0,
        ),
        Space(
            name="eigengap",
            about="Only the loss: loading, weight, definition and margin on a fixed network.",
            suggest=loss_only,
            anchors=(OFF | {"eps_psd": 1e-4}, FOUNDING | {"eps_psd": 1e-4}),
            fixed=LOCAL_SCENE | LOCAL_BUDGET,
            trials=48,
            minutes=15.0,
        ),
        Space(
            name="spectral",
            about="Only the backends, under the subspace loss, where they differ and diverge.",
            suggest=backends_only,
            # the last one's noise eigenvalues are exact ties, where the native derivative is NaN
            anchors=(
                OFF | {"network.kind": "dictionary", "eps_psd": 1e-2},
                *(
                    SUBSPACE | {"network.kind": kind, f"spectral.backend@{kind}.subspace": backend}
                    for kind, backend in (
                        ("dictionary", "exact"),
                        ("factor", "gram"),
                        ("factor", "eigh"),
                    )
                ),
            ),
            fixed=LOCAL_SCENE | LOCAL_BUDGET,
            trials=40,
            minutes=15.0,
        ),
        Space(
            name="full",
            about="The 12x12 panel with up to five sources, for GPUs.",
            suggest=everything_wide,
            anchors=EVERYTHING,
            fixed=FULL_SCENE
            | EVERY_SNR
            | {
                "epochs": 40,
                "steps_per_epoch": 100,
                "batch_size": 256,
                "evaluation.num_scenes": 256,
                "evaluation.num_test_scenes": 512,
                "evaluation.tolerance": 0.01,
                "evaluation.baselines": (
                    "crb",
                    "sml",
                    "lmmse_music",
                    "pinv_music",
                    "lmmse_mvdr",
                    "lmmse_beamformer",
                ),
            },
            trials=64,
            minutes=600.0,
        ),
    )
}


REDUCED: dict[str, Space] = {
    "full": replace(
        PRESETS["full"],
        about="The 12x12 panel with up to five sources, on two cores; begin with --start-from.",
        fixed={
            **PRESETS["full"].fixed,
            "epochs": 9,
            "steps_per_epoch": 25,
            "batch_size": 32,
            "evaluation.num_scenes": 32,
            "evaluation.num_test_scenes": 32,
            "evaluation.tolerance": 0.0,
        },
        trials=12,
        minutes=75.0,
    ),
}
"""Presets with a budget that two cores can pay, where the whole one is for GPUs."""
BUDGETS = ("whole", "reduced")


def get(name: str, budget: str = "whole") -> Space:
    """Return the preset called `name` with one of the `BUDGETS`.

    Raises:
        ValueError: if there is none, with the nearest name, or it has no such budget.
    """
    if budget not in BUDGETS:
        raise ValueError(f"the budget must be one of {', '.join(BUDGETS)}, but got {budget!r}.")
    if budget == "reduced" and name in PRESETS:
        if name not in REDUCED:
            raise ValueError(
                f"presets with a reduced budget are {', '.join(REDUCED)}, but got {name!r}. Leave "
                "--budget out: the others are for two cores."
            )
        return REDUCED[name]
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, n=1)
        hint = f" Did you mean `{near[0]}`?" if near else ""
        raise ValueError(
            f"the preset must be one of {', '.join(PRESETS)}, but got {name!r}.{hint}"
        )
    return PRESETS[name]
