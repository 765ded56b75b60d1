"""A run of a design with planted effects."""

import numpy as np

from search.records.store import RunStore
from search.report.data import load
from search.reruns.design import SCENE_SEED, VALIDATION_SEED
from trainer.config import COUNT_RULES

SNRS, SCENES, SEEDS = (-5.0, 0.0), 200, 4
EFFECTS = {"none": (0.0, 0.0), "good": (-0.05, 0.3), "bad": (0.05, -0.3), "same": (0.0, 0.0)}
"""By term: what it does to the capped error, and to the share of right K by MDL."""
NETWORKS, REGIMES = ("gram", "dictionary"), ("local", "few")


def made(path, *, lost=(), terms=EFFECTS):
    """A run of a design: common scenes differ by .1, trainings by .002, MDL is the best rule."""
    rng = np.random.default_rng(5)
    design = {
        "sha256": "0" * 64,
        "networks": {name: {} for name in NETWORKS},
        "regimes": {name: {} for name in REGIMES},
        "terms": {name: {} for name in terms},
        "seeds": SEEDS,
        "margins": {"capped_error": 0.02, "source_number_accuracy": 0.05},
        "control": {"networks": ["gram"], "terms": ["good"], "gain": 0.1},
        "validation_seed": VALIDATION_SEED,
        "scene_seed": SCENE_SEED,
    }
    plan = {"search": {}, "fixed": {"evaluation.objective_snr_db": SNRS}, "design": design}
    store = RunStore.create(path, parameters={}, plan=plan)
    hard = 0.1 * rng.standard_normal((2, len(SNRS), SCENES))
    luck = rng.uniform(size=(2, len(SNRS), SCENES))
    rows = []
    for network in NETWORKS:
        for regime in REGIMES:
            for term, (error, share) in terms.items():
                for seed in range(1, SEEDS + 1):
                    name = f"{network}-{regime}-{seed}-{term}"
                    key = {"ablation": "x", "arm": term, "network": network, "regime": regime}
                    key |= {"trial_id": name, "seed": seed, "changes": term, "num_sources": 1}
                    if (term, seed) in lost:
                        at = {"evaluation_seed": SCENE_SEED, "snr_db": 0.0, "num_scenes": 0}
                        rows.append(key | at)
                        continue
                    own = 0.002 * rng.standard_normal()
                    scenes = []
                    for s, where in enumerate((VALIDATION_SEED, SCENE_SEED)):
                        for i, snr_db in enumerate(SNRS):
                            at = {"evaluation_seed": where, "snr_db": snr_db}
                            right = luck[s, i] < 0.5 + share
                            for rule in COUNT_RULES:
                                said = right.mean() if rule == "mdl" else 0.1
                                counted = {"source_number_accuracy": said, "rule": rule}
                                rows.append(key | at | counted | {"num_scenes": SCENES})
                            values = 0.5 + hard[s, i] + own + error
                            rows.append(
                                key | at | {"num_scenes": SCENES, "capped_error": values.mean()}
                            )
                            scenes += [
                                {
                                    "trial_id": name,
                                    "estimator": "network",
                                    "seed": seed,
                                    "changes": term,
                                    "scene_id": j,
                                    "num_sources": 1,
                                    "capped_error": float(values[j]),
                                    "success": 0.5,
                                    **{f"source_number_{r}": 2 for r in COUNT_RULES},
                                    "source_number_mdl": 2 - int(right[j]),
                                    **{f"gospa_{r}": 1.0 for r in COUNT_RULES},
                                    "gospa_mdl": float(values[j]),
                                }
                                | at
                                for j in range(SCENES)
                            ]
                    store.write_part("scenes", name, scenes)
    store.write_part("ablations", "x", rows)
    return load(path)
