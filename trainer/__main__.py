"""`python -m trainer`: the trainer alone, on plain files; no Ray, no Optuna, no Parquet.

    train     one configuration, to a folder with config.json, state.pt, and best/, the model
    convert   MATLAB, HDF5, NumPy or CSV files to a recording, by a mapping (docs/data.md)
    check     a recording: does it fit the model, and if not, which convention is at fault
    localise  the sources of recorded scenes, with a trained model or by a classical method
    replay    a trial of a run, from its records in runs/<name>/configs and endings
    evaluate  a trained network on held-out scenes, next to the classical methods and the bound
    limit     the least expected error of any estimator, computed once per law of scenes and kept
    preflight this machine's eigendecompositions: are they right, and how fast

Exit codes: 0 done; 1 the training diverged (`train`), the recording does not fit (`check`), the
record was not reproduced (`replay`), a point was sampled too poorly (`limit`), a backend failed
(`preflight`), or code of yours raised an exception; 2 bad usage.
"""

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trainer.cli import (
    OneLineParser,
    add_localise_flags,
    add_search_flags,
    ignore_closed_output,
    localise_arguments,
    parse_settings,
    search_arguments,
)
from trainer.config import POSTERIOR_NAME, ConfigError, TrainConfig, require
from trainer.record import START_FILE, read_record, read_trial
from trainer.user_code import no_exit, told, with_hashes

FACTOR_RANK = 8
"""Learned columns of the factor that `preflight` assumes where the configuration has none."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    with ignore_closed_output():
        try:
            args = parser().parse_args(argv)
            with no_exit():
                return int(args.act(args))
        except ConfigError as error:
            print(f"trainer: {error}", file=sys.stderr)
            return 2
        except Exception as error:
            if (said := told(error)) is None:
                raise
            print(f"trainer: {said}", file=sys.stderr)
            return 1


def parser() -> argparse.ArgumentParser:
    """Return the parser of all verbs; each stores its function as `act`."""
    p = OneLineParser(prog="python -m trainer", description=__doc__.splitlines()[0])
    verbs = p.add_subparsers(required=True, metavar="VERB")

    p_train = verbs.add_parser("train", help="train one configuration")
    p_train.set_defaults(act=train)
    p_train.add_argument("--out", type=Path, default=Path("trained"), help="folder to write to")
    p_train.add_argument(
        "--start-from",
        type=Path,
        metavar="MODEL",
        help="begin with the weights of this model, also on another panel or in another region; "
        "its network is taken over",
    )
    _add_config_flags(p_train)

    p_replay = verbs.add_parser("replay", help="repeat a trial of a run and compare how it ended")
    p_replay.set_defaults(act=replay)
    p_replay.add_argument("run", help="name of the run under --out, or its path")
    p_replay.add_argument("trial", help="trial_id, e.g. t0003")
    p_replay.add_argument("--out", type=Path, default=Path("runs"), help="folder of runs")
    p_replay.add_argument(
        "--step",
        type=int,
        metavar="N",
        help="print the step after N optimiser steps in detail: eigenvalues, loss terms, tensors; "
        "default: the step that failed",
    )

    p_evaluate = verbs.add_parser("evaluate", help="evaluate a trained network on held-out scenes")
    p_evaluate.set_defaults(act=evaluate)
    p_evaluate.add_argument(
        "state",
        type=Path,
        help="a state.pt, or a folder that holds one; in a training's folder, its best epoch's",
    )
    p_evaluate.add_argument("--seed", type=int, help="of the scenes; default: the held-out ones")
    p_evaluate.add_argument("--num-scenes", type=int, help="per SNR and K")
    p_evaluate.add_argument("--snr-db", type=float, nargs="+", help="SNRs [dB]")
    p_evaluate.add_argument("--num-sources", type=int, nargs="+", help="K; 0 is noise alone")
    p_evaluate.add_argument(
        "--tolerance",
        type=float,
        help="half-width of the capped error's 95 %% interval that ends a row early; 0: never",
    )
    p_evaluate.add_argument(
        "--baselines", nargs="+", metavar="NAME", help="crb, sml, lmmse_music, posterior, ..."
    )
    p_evaluate.add_argument(
        "--readout",
        choices=("music", "posterior"),
        default="music",
        help="posterior: also that of places under the law of the scenes",
    )

    p_convert = verbs.add_parser("convert", help="make a recording of other software's files")
    p_convert.set_defaults(act=convert)
    p_convert.add_argument("files", type=Path, nargs="+", help=".mat, .h5, .npz, .npy, .csv")
    p_convert.add_argument(
        "--map", type=Path, help="TOML file: which array is which; default: list the arrays"
    )
    p_convert.add_argument("--out", type=Path, help="recording to write, .npz")

    p_check = verbs.add_parser("check", help="say whether a recording fits the model, or why not")
    p_check.set_defaults(act=check)
    p_check.add_argument("scenes", type=Path, metavar="FILE", help="a recording, .npz")
    p_check.add_argument("--method", default="sml", help="that localises; default: sml")
    p_check.add_argument("--num-scenes", type=int, default=32, help="to try; default: 32")
    add_search_flags(p_check)

    p_localise = verbs.add_parser("localise", help="find the sources of recorded scenes")
    p_localise.set_defaults(act=localise)
    add_localise_flags(p_localise)

    p_limit = verbs.add_parser("limit", help="compute the least expected error of any estimator")
    p_limit.set_defaults(act=limit)
    p_limit.add_argument(
        "--snr-db", type=float, nargs="+", help="SNRs [dB]; default: reported ones"
    )
    p_limit.add_argument("--num-sources", type=int, nargs="+", help="K, 1 or 2; default: both")
    p_limit.add_argument(
        "--num-scenes", type=int, help="held-out scenes per SNR and K; default: those evaluated"
    )
    _add_config_flags(p_limit)

    p_preflight = verbs.add_parser("preflight", help="check this machine's eigendecompositions")
    p_preflight.set_defaults(act=preflight)
    _add_config_flags(p_preflight)
    return p


def train(args: argparse.Namespace) -> int:
    """Train; leave `config.json`, the last `state.pt`, and the model in `best`."""
    from trainer.provenance import provenance
    from trainer.record import BEST_FILE, STATE_FILE
    from trainer.training import (
        MODEL_FOLDER,
        export_model,
        find_model,
        print_epochs,
        started_config,
    )
    from trainer.training import train as train_epochs

    model = args.out / MODEL_FOLDER
    if args.start_from is None:
        config = read_config(args)
    else:
        config = started_config(find_model(args.start_from) / STATE_FILE, read_params(args))
    require(
        not model.exists(),
        f"--out holds no model in {MODEL_FOLDER}/ yet",
        f"{model} is there",
        "Move it away, or choose another folder: an old model must not pass for the new one.",
    )
    try:
        args.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"--out must be a folder that can be made, but {args.out} cannot ({error.strerror}). "
            "Choose another."
        ) from error
    failure = print_epochs(config, train_epochs(config), save_to=args.out)
    record = {"params": config.to_params(), "failure": failure and failure.as_dict()}
    (args.out / "config.json").write_text(json.dumps(record, indent=2) + "\n")
    if failure:
        print(f"wrote {args.out}/config.json")
        return 1
    export_model(args.out / BEST_FILE, model, about=provenance())
    (args.out / BEST_FILE).unlink()
    print(f"wrote {args.out}/config.json, {args.out}/state.pt and {model}/")
    print(f"next:  python -m trainer localise --model {args.out} --scenes FILE.npz --out FILE.npz")
    return 0


def convert(args: argparse.Namespace) -> int:
    """Write a recording made of other software's files, or list their arrays."""
    from trainer.exchange import convert as convert_files
    from trainer.exchange import describe_arrays, read_arrays
    from trainer.scenes import save_scenes

    if args.map is None and args.out is None:
        print("\n".join(describe_arrays(read_arrays(args.files))))
        print("next: python -m trainer convert FILES --map MAP.toml --out FILE.npz (docs/data.md)")
        return 0
    both = args.map is not None and args.out is not None
    require(both, "--map and --out are given together", "one of them", "Give both.")
    same = args.out.resolve() in [file.resolve() for file in args.files]
    require(not same, "--out is another file than those read", f"{args.out}", "Rename it.")
    scenes = convert_files(args.files, args.map)
    save_scenes(scenes, args.out)
    sizes = f"{scenes.batch_size} scenes, {scenes.num_snapshots} snapshots"
    print(f"wrote {args.out}: {sizes}, {scenes.num_antennas} antennas, {scenes.panel}")
    print(f"next:  python -m trainer check {args.out}")
    return 0


def check(args: argparse.Namespace) -> int:
    """Print what a recording holds and whether it fits the model; return 1 if it does not."""
    from trainer.localisation import check_recording

    asked = search_arguments(args) | {"method": args.method, "num_scenes": args.num_scenes}
    found = check_recording(args.scenes, **asked)
    print("\n".join(found.lines))
    return 0 if found.well else 1


def localise(args: argparse.Namespace) -> int:
    """Write the estimates of every scene of a recording."""
    from trainer.localisation import localise as localise_scenes
    from trainer.localisation import withheld_line
    from trainer.scenes import origin_note

    require(args.out.suffix == ".npz", "--out ends in .npz", f"{args.out}", "Rename it.")
    found = localise_scenes(**localise_arguments(args))
    found.save(args.out)
    print(f"wrote {args.out}: {found.active.sum()} sources in {len(found.num_sources)} scenes")
    lines = (
        found.origin_line(),
        found.sampling_line(),
        withheld_line(found),
        found.diagnosis,
        origin_note(args.scenes),
    )
    for line in filter(None, lines):
        print(line)
    return 0


def replay(args: argparse.Namespace) -> int:
    """Repeat a recorded trial and compare, or print one step of it in detail."""
    from trainer.training import give_start, replay_to_step, replay_trial

    named = args.out / args.run
    run = named if named.is_dir() else Path(args.run)
    record = read_trial(run, args.trial)
    if (run / START_FILE).is_file():
        give_start((run / START_FILE).read_bytes())
    return replay_trial(record) if args.step is None else replay_to_step(record, args.step)


def evaluate(args: argparse.Namespace) -> int:
    """Print one row per estimator, SNR and K."""
    from trainer.evaluation import (
        confusion_lines,
        evaluate_baselines,
        evaluate_network,
        table_lines,
    )
    from trainer.record import STATE_FILE
    from trainer.training import MODEL_FOLDER, resolve_device, restore_network

    state = args.state
    if state.is_dir():  # a training's folder has its last epoch too, but its model is the best
        best = state / MODEL_FOLDER / STATE_FILE
        state = best if best.is_file() else state / STATE_FILE
    device = resolve_device("auto")
    config, network = restore_network(state, device)
    print(f"scored: {state}", file=sys.stderr)
    flags = {
        "test_seed": args.seed,
        "num_test_scenes": args.num_scenes,
        "report_snr_db": args.snr_db and tuple(args.snr_db),
        "tolerance": args.tolerance,
        "baselines": args.baselines and tuple(args.baselines),
    }
    given = {name: value for name, value in flags.items() if value is not None}
    config = dataclasses.replace(
        config, evaluation=dataclasses.replace(config.evaluation, **given)
    )
    counts = args.num_sources and tuple(args.num_sources)
    most = config.scene.max_sources
    require(
        counts is None or (min(counts) >= 0 and max(counts) <= most),
        "0 <= --num-sources <= max_sources",
        f"{counts}, max_sources={most}",
        "The network was trained for no more.",
    )
    if args.readout == POSTERIOR_NAME and POSTERIOR_NAME not in config.evaluation.baselines:
        named = (*config.evaluation.baselines, POSTERIOR_NAME)
        judged = dataclasses.replace(config.evaluation, baselines=named)
        config = dataclasses.replace(config, evaluation=judged)
    evaluations = [
        evaluate_network(network, config, num_sources=counts),
        evaluate_network(network, config, num_sources=counts, refine=True),
        *evaluate_baselines(config, device=str(device), num_sources=counts),
    ]
    rows = [row for evaluation in evaluations for row in evaluation.rows]
    lines = table_lines(sorted(rows, key=lambda r: (r.num_sources, r.snr_db)))
    confusion = confusion_lines(evaluation.scenes for evaluation in evaluations)
    print("\n".join([*lines, "", *confusion] if confusion else lines))
    return 0


def limit(args: argparse.Namespace) -> int:
    """Print the limit at every SNR and K; compute and keep what is not kept yet."""
    import torch

    from trainer.evaluation import extend_limit, limit_lines
    from trainer.limits import (
        LIMIT_SOURCES,
        LIMITS,
        KeptLimits,
        fault_of,
        limit_cache,
        scenes_in,
    )
    from trainer.training import resolve_device

    config = read_config(args)
    judged, device = config.evaluation, resolve_device(config.device)
    most = min(config.scene.max_sources, LIMIT_SOURCES)
    counts = args.num_sources or list(range(1, most + 1))
    require(
        min(counts) >= 1 and max(counts) <= most,
        f"1 <= --num-sources <= {most}",
        f"{counts}",
        f"The limit is known for at most {LIMIT_SOURCES} sources, and the scenes have "
        f"{config.scene.max_sources}.",
    )
    wanted = judged.num_test_scenes if args.num_scenes is None else args.num_scenes
    require(wanted >= 1, "--num-scenes >= 1", f"{wanted}", "Leave it out for those evaluated.")
    if args.snr_db:
        judged = dataclasses.replace(judged, report_snr_db=tuple(args.snr_db))
    kept, folder, poor = KeptLimits(config.scene, judged.test_seed), limit_cache(), False
    points = [(snr, k) for k in counts for snr in judged.report_snr_db]
    torch.set_num_threads(1)  # the matrices of a chunk are small
    for snr_db, count in points:
        start = kept.point(snr_db, count)
        began, point = time.monotonic(), start
        for point in extend_limit(
            kept, snr_db, count, wanted, start=start, folder=folder, device=device
        ):
            _say_progress(snr_db, count, scenes_in(start), scenes_in(point), wanted, began)
        print("\n".join(limit_lines(snr_db, count, point)), flush=True)
        poor |= any(fault_of(point, observer) is not None for observer in LIMITS.values())
    print(f"kept in {folder / kept.digest}, or in the package")
    return 1 if poor else 0


def _say_progress(
    snr_db: float, count: int, before: int, done: int, wanted: int, began: float
) -> None:
    """Print how far a point is, over the last such line on a terminal."""
    if not sys.stderr.isatty() or done == before:
        return
    each = (time.monotonic() - began) / (done - before)
    left = max(wanted - done, 0) * each
    text = f"K={count}, {snr_db:g} dB: {done} of {wanted} scenes"
    text += f", {each:.2f} s each, {left:.0f} s left"
    print(f"\r{text:<70}", end="\n" if done >= wanted else "", file=sys.stderr, flush=True)


def preflight(args: argparse.Namespace) -> int:
    """Print how right and how fast this machine's eigendecompositions are, and what `auto` is."""
    import torch

    from trainer.spectral import BACKENDS, check_spectral, problem_size
    from trainer.training import resolve_device

    torch.set_num_threads(1)  # as a trial on one CPU
    config = read_config(args)
    own = problem_size(config)
    columns = own.rank or FACTOR_RANK + config.scene.num_snapshots
    sizes = [dataclasses.replace(own, rank=rank) for rank in (None, columns)]
    backends = set(BACKENDS) - (set() if columns < own.num_elements else {"gram"})
    check = check_spectral(backends, sizes=sizes, device=str(resolve_device(config.device)))
    print("\n".join(check.lines()))
    return 0 if check.ok else 1


def read_config(args: argparse.Namespace) -> TrainConfig:
    """Return the configuration that `--config` and `--set` stand for.

    Raises:
        ConfigError: if they break a rule.
    """
    return TrainConfig.from_params(read_params(args))


def read_params(args: argparse.Namespace) -> dict[str, Any]:
    """Return the parameters that `--config` and `--set` give, by dotted name."""
    params: dict[str, Any] = dict(read_record(args.config)["params"]) if args.config else {}
    return with_hashes(params | parse_settings(args.set))


def _add_config_flags(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--config", type=Path, help="JSON file: params, or a record of a run's configs/"
    )
    p.add_argument(
        "--set",
        metavar="NAME=VALUE",
        nargs="+",
        action="extend",
        default=[],
        help="configuration fields by dotted name, e.g. network.width=16",
    )


if __name__ == "__main__":
    sys.exit(main())
