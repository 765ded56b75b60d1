"""The model card: purpose, results and origin of a trained network, in Markdown.

Every number comes with its n and its 95 % interval. Reference: Mitchell et al. 2019, "Model cards
for model reporting".
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from trainer.config import REFINEMENTS, TrainConfig
from trainer.covariance import SteeringDictionary
from trainer.evaluation import Calibration
from trainer.intervals import Interval
from trainer.limits import how_to_know

from .checkpoint import TrainState

JUDGED = """Fisher scoring, or another search of the likelihood, where the Fisher information there
tells angles to 5° (shares of scenes: kept, scored, searched)"""
GRAM = """No steering vector is in its output, and no weight belongs to an element: what ties it to
the panel is what it has learned of its spacing, of its size and of its edges."""
CARD = """\
# {kind} network for {scene.layout} elements

Predicts the covariance that a reconfigurable intelligent surface sees, from {scene.num_snapshots}
snapshots of {scene.num_antennas} antennas; MUSIC on it finds 1 to {scene.max_sources} sources, and
the likelihood of the snapshots sharpens them. {size:,} learned parameters.

```sh
python -m trainer localise --model THIS_FOLDER --scenes scenes.npz --out estimates.npz
```

## Results

Held-out scenes of seed {judged.test_seed}, K known. `network` is MUSIC alone, by which training
and search are judged; `network+{refinement}` adds
{added}, as `localise` does, and
has the confidence below. Capped error is mean(min(angle error, 10°)) / 10°, success the share of
sources within 5° and 5°, both with 95 % intervals; n counts scenes, the same ones at every SNR and
K.

| mean at {objective} dB | capped error | n |
|---|---|---|
{summary}

{distance}

| readout | SNR/dB | K | n | capped error | success | kept / scored / searched |
|---|---|---|---|---|---|---|
{rows}

## Confidence

The probability that an estimate lies within 5° of a source in azimuth and elevation, for scenes
such as those trained on. Its expected calibration error, by cross-validation on
{calibration.count} further scenes, is {calibration.error:.3f}, K known{asked}.

## Training

Best epoch {state.epoch} of {config.epochs} by the capped error at {objective} dB on validation
scenes of seed {judged.seed}. Training seed {config.seed}; {state.step} steps of
{config.batch_size} scenes, SNR {config.snr_min_db:g} to {config.snr_max_db:g} dB. Configuration
{config.digest}, all of it in `config.json`. {begun}{dictionary} Scenes:

{law}

## Limits

- Simulated scenes only: exact spherical waves, a known Rician channel, codes and noise as above.
  Outside of the region, and of these SNRs, nothing has been measured.
- Where K is not known, it is that of the largest evidence of the snapshots, each K fitted from
  MUSIC's places, and often wrong at low SNR. Confidence then has coefficients of its own.

## Origin

{origin}
"""


def model_card(
    state: TrainState,
    rows: Sequence[Mapping[str, Any]],
    calibration: Calibration,
    *,
    means: Mapping[str, Interval],
    distances: Mapping[str, Mapping[str, Any]],
    about: Mapping[str, Any],
    size: int,
    dictionary: SteeringDictionary,
) -> str:
    """Write the card of a checkpoint.

    Args:
        rows: `EvaluationRow`s of the network as dictionaries, on held-out scenes.
        means: capped errors of the network and of others on these scenes, over the SNRs of the
            objective and K, by estimator.
        distances: as of `ModelEvaluation`.
        about: origin, as `provenance` returns it.
        size: number of learned parameters.
        dictionary: of the network.
    """
    config = state.config
    asked = calibration.asked_error
    judged = config.evaluation
    return CARD.format(
        kind=config.network.kind[:1].upper() + config.network.kind[1:],
        state=state,
        config=config,
        scene=config.scene,
        judged=judged,
        calibration=calibration,
        asked="" if asked is None else f", and {asked:.3f}, K asked",
        size=size,
        refinement=judged.refinement or REFINEMENTS[0],
        added=JUDGED if judged.refinement == "judged" else "Fisher scoring",
        objective=", ".join(f"{snr:g}" for snr in judged.objective_snr_db),
        summary="\n".join(map(_mean, means, means.values())),
        distance=_distance(distances, config),
        rows="\n".join(map(_row, rows)),
        begun=_begun(config.start_sha256),
        dictionary=GRAM if config.network.kind == "gram" else _dictionary(dictionary),
        law="\n".join(f"- {name}: {value}" for name, value in asdict(config.scene).items()),
        origin="\n".join(_origin(about)),
    )


def _mean(name: str, mean: Interval) -> str:
    """Return an estimator's line of means."""
    return f"| {name} | {mean.mean:.3f} [{mean.low:.3f}, {mean.high:.3f}] | {mean.n} |"


def _distance(distances: Mapping[str, Mapping[str, Any]], config: TrainConfig) -> str:
    """Return a sentence on the distance to the limit, or on how to know it."""
    if not distances:
        return how_to_know(config)
    told = [
        f"{name} {one['mean']:.3f} [{one['low']:.3f}, {one['high']:.3f}]"
        for name, one in distances.items()
    ]
    first = next(iter(distances.values()))
    snrs = ", ".join(f"{snr:g}" for snr in first["snr_db"])
    count = min(one["n"] for one in distances.values())
    return (
        "Distance to the limit, the least capped error of any estimator that knows K, the SNR and "
        f"the law of scenes, mean at {snrs} dB, paired over {count} scenes: {', '.join(told)}."
    )


def _begun(sha256: str | None) -> str:
    """Return a sentence on the weights that the training began with, or ""."""
    return "" if sha256 is None else f"It began with the weights of SHA-256 {sha256[:12]}... "


def _dictionary(dictionary: SteeringDictionary) -> str:
    """Return a sentence on the steering dictionary and the error of its products."""
    made = f"Steering dictionary of {len(dictionary.steering):,} points"
    error = dictionary.products().error
    if not error:
        return f"{made}, its table of outer products whole."
    return f"{made}, its table of outer products interpolated to {error:.1e} of its norm."


def _row(row: Mapping[str, Any]) -> str:
    def interval(name: str, digits: int) -> str:
        mean, low, high = (row[f"{name}{end}"] for end in ("", "_low", "_high"))
        if mean is None:  # noise alone has no sources to find
            return ""
        return f"{mean:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"

    cells = (row["estimator"], f"{row['snr_db']:g}", row["num_sources"], row["num_scenes"])
    measured = [interval("capped_error", 3), interval("success_rate", 2), ""]
    scored, searched = row.get("scored_share"), row.get("searched_share")
    if scored is not None and searched is not None:
        measured[-1] = f"{1 - scored - searched:.2f} / {scored:.2f} / {searched:.2f}"
    return "| " + " | ".join(map(str, (*cells, *measured))) + " |"


def _origin(about: Mapping[str, Any]) -> list[str]:
    code, versions = about.get("code") or {}, about.get("versions") or {}
    lines = [f"- Command: `{shlex.join(about.get('argv') or ['unknown'])}`"]
    lines.append(f"- Time: {about.get('time', 'unknown')}")
    dirty = ", with changes" if code.get("dirty") else ""
    lines.append(f"- Commit: {code.get('sha') or code.get('git', 'unknown')}{dirty}")
    known = (f"{name} {version}" for name, version in versions.items() if version)
    return [*lines, f"- Versions: {', '.join(known)}"]
