"""Printed output of a search: its plan before anything is spent, and its results."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from search.plan import SearchConfig, SearchFailed, check_loggers
from trainer.own_trainer import OwnTrainer, split_objective

if TYPE_CHECKING:
    from search.records import RunStore

NUM_SAMPLES = 10
"""Number of configurations that a dry run prints."""


def print_results(plan: SearchConfig, store: RunStore) -> None:
    """Print the leaderboard and the next commands, and draw the plot; raise SearchFailed if no
    trial completed."""
    from search.records import best_trial
    from search.report.analysis import leaderboard
    from search.report.data import load
    from search.report.figures import pareto, plots

    run = load(store.path)
    print(leaderboard.text(run))
    if len(plan.objectives) > 1:
        print(pareto.text(run))
    print()
    try:
        plot = plots.error_vs_snr(run)
    except OSError as error:  # a finished run may lie on a read-only disk
        print(f"no plot: {store.path} takes no files ({error.strerror})", file=sys.stderr)
    else:
        if plot:
            print(f"plot:     {plot}")
    print(f"report:   python -m search.report {store.path} --open")
    if (store.path / "tensorboard").is_dir():
        print(f"logs:     tensorboard --logdir {store.path}/tensorboard")
    trials = store.read("trials")
    best = best_trial(trials)
    read = f"import pandas; print(pandas.read_parquet('{store.path}/trials'))"
    print(f'tables:   python -c "{read}"')
    print(f"optuna:   optuna-dashboard {store.path}/optuna.log")
    if best is None:
        raise SearchFailed("no trial completed; the causes are in the table `failures`")
    checkpoint = store.path / str(trials.set_index("trial_id")["checkpoint"][best])
    print(f"replay:   python -m trainer replay {store.path} {best}")
    if plan.trainable is not None:
        print(f"state:    search.open_run('{store.path}').best().state(), of its best epoch")
        print(f"confirm:  python -m search.confirm {store.path}")
        return
    if checkpoint.exists():
        print(f"evaluate: python -m trainer evaluate {checkpoint}")
    print(f"confirm:  python -m search.confirm {store.path}")
    if (store.path / "best").is_dir():
        print(f"model:    {store.path}/best/model_card.md")
        print(
            f"localise: python -m trainer localise --model {store.path} --scenes FILE.npz "
            "--out FILE.npz"
        )


def dry_run(plan: SearchConfig) -> int:
    """Print the plan and ten configurations as the search would draw them; start nothing."""
    from search.suggest import History, new_study, sampler_for, warm_start
    from trainer.provenance import provenance

    check_loggers(plan.log)
    warm, notes = warm_start(plan, provenance())
    print(describe_plan(plan), *notes, sep="\n")
    study = new_study(plan, known=History(warm=warm).trials_for_sampler(plan))
    for anchor in plan.space.anchors:
        study.enqueue_trial(dict(anchor))
    for number in range(NUM_SAMPLES):
        study.sampler = sampler_for(plan, number)
        drawn = plan.space.suggest(study.ask())
        plan.config(drawn)  # refuses a configuration that cannot be trained
        kind = "anchor" if number < len(plan.space.anchors) else "sample"
        values = "  ".join(
            f"{k}={v:.3g}" if isinstance(v, float) else f"{k}={v}" for k, v in drawn.items()
        )
        print(f"{number:2d} {kind}  {values}")
    return 0


def describe_plan(plan: SearchConfig) -> str:
    """Return the plan as text."""
    space = plan.space
    facts = {
        "run": f"{plan.out.rstrip('/')}/{plan.name}",
        "preset": f"{space.name}: {space.about}",
        "trials": f"{plan.trials}, the first {len(space.anchors)} known-good; "
        f"sampler {plan.sampler}; scheduler {plan.scheduler}; seed {plan.seed}",
        **(_our_facts(plan) if plan.own_trainer is None else _own_facts(plan, plan.own_trainer)),
        "fixed": ", ".join(f"{name}={value}" for name, value in plan.changes.values.items()),
        "log": ", ".join(plan.log),
    }
    lines = [f"{name:<10} {text}" for name, text in facts.items() if text] + ["searched"]
    ranges = space.ranges()
    width = max(map(len, ranges), default=0)
    lines += [f"  {name:<{width}}  {values}" for name, values in ranges.items()]
    return "\n".join(lines)


def _own_facts(plan: SearchConfig, own: OwnTrainer) -> dict[str, str]:
    name, sign = split_objective(own.objective)
    return {
        "trainer": f"{own.reference}, SHA-256 {plan.code[own.reference][:12]}...",
        "budget": f"{plan.config({}).epochs} epochs per trial; "
        f"about {plan.minutes:.3g} min for {plan.trials} trials",
        "objective": f"{name}, {'lower' if sign > 0 else 'higher'} is better",
    }


def _our_facts(plan: SearchConfig) -> dict[str, str]:
    config = plan.template
    scene = config.scene
    snrs = ", ".join(f"{snr:g}" for snr in config.evaluation.objective_snr_db)
    return {
        "scene": f"{scene.layout} RIS, "
        f"{scene.num_antennas} antennas, {scene.num_snapshots} snapshots, "
        f"K in 1..{scene.max_sources}, range {scene.range_min_m:g}-{scene.range_max_m:g} m, "
        f"training SNR {config.snr_min_db:g}..{config.snr_max_db:g} dB",
        "budget": f"{config.epochs} epochs x {config.steps_per_epoch} steps x "
        f"{config.batch_size} scenes per trial; "
        f"about {plan.minutes:.3g} min for {plan.trials} trials",
        "objective": f"capped error at {snrs} dB, {config.evaluation.num_scenes} scenes for each "
        "SNR and K; lower is better",
        "start": f"the weights of {plan.start_from}" if plan.start_from else "",
    }
