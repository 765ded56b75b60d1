"""`python -m trainer`: the trainer alone, on plain files; no Ray, no Optuna, no Parquet.

    train     one configuration, to a folder with config.json, state.pt, and best/, the model
    localise  the sources of recorded scenes, with a trained model
    replay    a trial of a run, from its records in runs/<name>/configs and endings
    evaluate  a trained network on held-out scenes, next to the classical methods and the bound
    preflight the machine at hand: are its eigendecompositions right, and how fast

Exit codes: 0 done; 1 the training diverged (`train`), the record was not reproduced (`replay`), or
a backend failed (`preflight`); 2 bad usage.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .cli import (
    OneLineParser,
    lasting,
    localise_arguments,
    localise_options,
    settings,
)
from .config import ConfigError, TrainConfig, require
from .record import read_record, read_trial

FACTOR_RANK = 8
"""Learned columns of the factor that `preflight` assumes where the configuration has none."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = OneLineParser(prog="python -m trainer", description=__doc__.splitlines()[0])
    verbs = p.add_subparsers(dest="verb", required=True, metavar="VERB")

    train = verbs.add_parser("train", help="train one configuration")
    train.add_argument("--out", type=Path, default=Path("trained"), help="folder to write to")
    _config_options(train)

    replay = verbs.add_parser("replay", help="repeat a trial of a run and compare how it ended")
    replay.add_argument("run", help="name of the run under --out, or its path")
    replay.add_argument("trial", help="trial_id, e.g. t0003")
    replay.add_argument("--out", type=Path, default=Path("runs"), help="folder of runs")
    replay.add_argument(
        "--step",
        type=int,
        metavar="N",
        help="look at the step after N optimiser steps: eigenvalues, loss terms, tensors; "
        "default: the step that failed",
    )

    evaluate = verbs.add_parser("evaluate", help="score a trained network on held-out scenes")
    evaluate.add_argument(
        "state",
        type=Path,
        help="a state.pt, or a folder that holds one: of a training, that of its best epoch",
    )
    evaluate.add_argument("--seed", type=int, help="of the scenes; default: the held-out ones")
    evaluate.add_argument("--num-scenes", type=int, help="per SNR and K")
    evaluate.add_argument("--snr-db", type=float, nargs="+", help="SNRs [dB]")
    evaluate.add_argument("--num-sources", type=int, nargs="+", help="K; 0 is noise alone")
    evaluate.add_argument(
        "--tolerance",
        type=float,
        help="half-width of the capped error's 95 %% interval that ends a row early; 0: never",
    )
    evaluate.add_argument(
        "--baselines", nargs="+", metavar="NAME", help="crb, sml, lmmse_music, sparse_mvdr, ..."
    )

    localise = verbs.add_parser("localise", help="find the sources of recorded scenes")
    localise_options(localise)

    preflight = verbs.add_parser("preflight", help="check this machine's eigendecompositions")
    _config_options(preflight)
    return p


def _config_options(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--config", type=Path, help="JSON file: params, or a record of a run's configs/"
    )
    p.add_argument(
        "--set",
        metavar="NAME=VALUE",
        nargs="+",
        default=[],
        help="configuration fields by dotted name, e.g. eigengap.weight=0.1",
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    verbs = {
        "train": train,
        "replay": replay,
        "evaluate": evaluate,
        "localise": localise,
        "preflight": preflight,
    }
    with lasting():
        try:
            args = parser().parse_args(argv)
            return verbs[args.verb](args)
        except ConfigError as error:
            print(f"trainer: {error}", file=sys.stderr)
            return 2


def train(args: argparse.Namespace) -> int:
    """Trains; leaves `config.json`, the last `state.pt`, and in `best` the model."""
    from trainer.training import MODEL_FOLDER

    config = read_config(args)
    require(
        not (args.out / MODEL_FOLDER).exists(),
        f"--out holds no model in {MODEL_FOLDER}/ yet",
        f"{args.out / MODEL_FOLDER} is there",
        "Move it away, or choose another folder: an old model must not pass for the new one.",
    )
    try:
        args.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"--out must be a folder that can be made, but {args.out} cannot ({error.strerror}). "
            "Choose another."
        ) from error
    record: dict[str, Any] = {"params": config.to_params(), "failure": None}
    from trainer.training import BEST_FILE, print_epochs
    from trainer.training import train as train_epochs

    failure = print_epochs(config, train_epochs(config), save_to=args.out)
    record["failure"] = failure and failure.as_dict()
    (args.out / "config.json").write_text(json.dumps(record, indent=2) + "\n")
    if failure:
        print(f"wrote {args.out}/config.json")
        return 1
    from trainer.training import export_model

    from .provenance import provenance

    best = args.out / BEST_FILE
    export_model(best, args.out / MODEL_FOLDER, about=provenance())
    best.unlink()
    print(f"wrote {args.out}/config.json, {args.out}/state.pt and {args.out}/{MODEL_FOLDER}/")
    print(f"next:  python -m trainer localise --model {args.out} --scenes FILE.npz --out FILE.npz")
    return 0


def localise(args: argparse.Namespace) -> int:
    """Writes the estimates of every scene of a recording."""
    from trainer.training import localise as localise_scenes

    found = localise_scenes(**localise_arguments(args))
    found.save(args.out)
    print(f"wrote {args.out}: {found.active.sum()} sources in {len(found.num_sources)} scenes")
    return 0


def replay(args: argparse.Namespace) -> int:
    """Repeats a recorded trial; says whether it ended the same way."""
    from trainer.training import replay_to_step, replay_trial

    named = args.out / args.run
    run = named if named.is_dir() else Path(args.run)
    record = read_trial(run, args.trial)
    return replay_trial(record) if args.step is None else replay_to_step(record, args.step)


def evaluate(args: argparse.Namespace) -> int:
    """Prints one row per estimator, SNR and K."""
    import dataclasses

    from trainer.evaluation import evaluate_baselines, evaluate_network, table_lines
    from trainer.training import MODEL_FOLDER, STATE_FILE, resolve_device, restore_network

    # a training's folder has its last epoch too; what it is worth is its model's, the best one
    best = args.state / MODEL_FOLDER / STATE_FILE
    held = best if best.is_file() else args.state / STATE_FILE
    state = held if args.state.is_dir() else args.state
    device = resolve_device("auto")
    config, network = restore_network(state, device)
    print(f"scored: {state}", file=sys.stderr)
    asked = {
        "test_seed": args.seed,
        "num_test_scenes": args.num_scenes,
        "report_snr_db": tuple(args.snr_db) if args.snr_db else None,
        "tolerance": args.tolerance,
        "baselines": tuple(args.baselines) if args.baselines else None,
    }
    given = {name: value for name, value in asked.items() if value is not None}
    config = dataclasses.replace(
        config, evaluation=dataclasses.replace(config.evaluation, **given)
    )
    counts = tuple(args.num_sources) if args.num_sources else None
    most = config.scene.max_sources
    require(
        counts is None or (min(counts) >= 0 and max(counts) <= most),
        "0 <= --num-sources <= max_sources",
        f"{counts}, max_sources={most}",
        "The network was trained for no more.",
    )
    scored = [
        evaluate_network(network, config, num_sources=counts),
        evaluate_network(network, config, num_sources=counts, fisher_scoring=True),
        *evaluate_baselines(config, device=str(device), num_sources=counts),
    ]
    rows = [row for one in scored for row in one.rows]
    print("\n".join(table_lines(sorted(rows, key=lambda r: (r.num_sources, r.snr_db)))))
    return 0


def preflight(args: argparse.Namespace) -> int:
    """Prints what the machine's eigendecompositions are worth, and what `auto` stands for."""
    import dataclasses

    import torch

    from trainer.spectral import BACKENDS, check_spectral, problem_size
    from trainer.training import resolve_device

    torch.set_num_threads(1)  # as a trial on one CPU
    config = read_config(args)
    asked = problem_size(config)
    columns = asked.rank or FACTOR_RANK + config.scene.num_snapshots
    sizes = [dataclasses.replace(asked, rank=rank) for rank in (None, columns)]
    backends = set(BACKENDS) - (set() if columns < asked.num_elements else {"gram"})
    check = check_spectral(backends, sizes=sizes, device=str(resolve_device(config.device)))
    print("\n".join(check.lines()))
    return 0 if check.ok else 1


def read_config(args: argparse.Namespace) -> TrainConfig:
    """The configuration that `--config` and `--set` stand for.

    Raises:
        ConfigError: if they break a rule.
    """
    params = dict(read_record(args.config)["params"]) if args.config else {}
    return TrainConfig.from_params(params | settings(args.set))


if __name__ == "__main__":
    sys.exit(main())
