"""The guard: completed trials that are above LMMSE-MUSIC at some reported SNR and K."""

from search.report.data import Run, interval
from trainer.config import REFERENCE

from .estimators import LABELS

NAMED = 3
"""Number of guarded trials that are named."""


def guarded(run: Run) -> list[str]:
    """Return how many completed trials are guarded, and of the best of these the point, difference
    and interval; nothing if no trial was compared."""
    known = run.completed.dropna(subset=["guard_above"])
    marked = known[known["guard_above"] > 0].sort_values(["objective", "number"])
    if known.empty:
        return []
    count, name = f"{len(marked) or 'None'} of {len(known)}", LABELS[REFERENCE]
    where = "at some reported SNR and K (95 % over a trial's points together)"
    found = [f"{count} completed trials guarded: above {name} {where}."]
    for row in marked.head(NAMED).to_dict("records"):
        ends = interval([row[f"guard_difference{end}"] for end in ("", "_low", "_high")], sign="+")
        found.append(
            f"{row['trial_id']} at {row['guard_above']:.0f} of {row['guard_points']:.0f} points, "
            f"most surely at {row['guard_snr_db']:g} dB, K = {row['guard_num_sources']:.0f}: "
            f"{ends.full}, paired over {row['guard_scenes']:.0f} validation scenes."
        )
    if len(marked) > NAMED:
        found.append(f"{len(marked) - NAMED} more have `guard_above` > 0 in `trials`.")
    if len(marked) == len(run.completed):
        found.append("All of them are, so the best trial is one.")
    elif len(known) < len(run.completed):
        found.append(f"{len(run.completed) - len(known)} completed trials were not compared.")
    return found
