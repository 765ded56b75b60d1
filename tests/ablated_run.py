"""A run with an ablation of known effect, and confirmations by the same trainings."""

from pathlib import Path

import numpy as np
import pandas as pd

from search.records.store import RunStore
from search.report.data import Run, load
from tests.stored import ended_trial

SNRS = (-5.0, 0.0, 10.0)
SCENES, FRESH = 16, 3_000_003


def make(path: Path, effect: float, trials: int, seeds: int, acts: float) -> Run:
    """A run with an ablation; errors differ by seed and scene as those of networks do."""
    rng = np.random.default_rng(4)
    store = RunStore.create(path, parameters={}, plan={"search": {}})
    rows = []
    common = 0.05 * rng.standard_normal((len(SNRS), SCENES))
    for number in range(trials):
        trial = f"t{number:04d}"
        store.write_config(trial, {})
        row = {"trial_id": trial, "number": number, "outcome": "completed"}
        ended_trial(
            store,
            row | {"objective": 0.5 + 0.01 * number, "epochs": 1},
            epochs=[{"trial_id": trial, "epoch": 1}],
        )
        for seed in range(seeds):
            for arm, changes in (("without", ""), ("with", "eigengap.weight=0.3")):
                about = {"trial_id": trial, "seed": seed, "evaluation_seed": FRESH}
                about |= {"changes": changes, "num_sources": 1}
                luck = 0.01 * rng.standard_normal()
                scored = [
                    about
                    | {
                        "estimator": "network",
                        "snr_db": snr,
                        "scene_id": scene,
                        "capped_error": 0.5
                        + (arm == "with") * (effect * (snr < 5) + common[s, scene])
                        + luck,
                        "success": 0.5,
                        "source_number_found": float(rng.integers(2)),
                    }
                    for s, snr in enumerate(SNRS)
                    for scene in range(SCENES)
                ]
                name = f"{trial}-{seed}-{arm}"
                store.write_part("scenes", name, scored)
                totals = [
                    about
                    | {"estimator": "network", "snr_db": snr, "capped_error": 0.5}
                    | {"confirmed": None if changes else SCENES}
                    for snr in SNRS
                ]
                store.write_part("confirmations", name, totals)
                hinge = {"hinge": 0.2 if arm == "with" else 0.3}
                hinge |= {"hinge_active": 0.6 if arm == "with" else acts}
                rows += [
                    about
                    | hinge
                    | {"ablation": "eigengap", "arm": arm, "snr_db": snr, "num_scenes": SCENES}
                    for snr in SNRS
                ]
    store.write_part("ablations", "eigengap", rows)
    return load(path)


def plain(rows):
    """As a store takes them: nothing where there is no number."""
    return [{k: v for k, v in row.items() if pd.notna(v)} for row in rows.to_dict("records")]
