"""Rate of doubles and of missed pairs, where estimators are told K = 2.

    python benchmarks/doubles.py [--scenes 400] [--methods sml lmmse_music+scoring posterior]
        [--model RUN] [--write]

*Doubles*: of scenes with one source, those whose two estimates are both `resolved`. *Missed*: of
scenes with two sources that are both found within 5° and 5°, those whose estimates are not both
resolved. Shares with 95 % Wilson intervals. --model adds a network as `localise` reads it. With
--write the table goes into docs/network.md at <!-- doubles -->.
"""

import argparse
import shlex
import sys
from pathlib import Path

from trained import LOCAL_SCENE  # isort: skip  (sets threads)

import torch
from documents import write_tables
from torch import Tensor

from trainer.config import POSTERIOR_NAME, TrainConfig
from trainer.estimation import Localiser, build_localiser, refined_music
from trainer.evaluation import match, posterior_readout, success
from trainer.intervals import wilson_share
from trainer.scenes import EvalScenes
from trainer.training import load_model, resolve_device

SCENE = TrainConfig.from_params(LOCAL_SCENE).scene
SEED = 15_000_003
SNR_DB = (0.0, 10.0, 20.0)
DOCUMENT = Path("docs/network.md")


def localisers(names: list[str], model: Path | None) -> dict[str, Localiser]:
    """Return the methods to compare by name."""
    found: dict[str, Localiser] = {
        name: (lambda scenes, count: posterior_readout(scenes, count, SCENE).estimates(SCENE))
        if name == POSTERIOR_NAME
        else build_localiser(name, SCENE)
        for name in names
    }
    if model is not None:
        loaded = load_model(model, resolve_device("cpu"))
        how = loaded.config.evaluation.refinement
        found[f"network+{how or 'scoring'}"] = lambda scenes, count: refined_music(
            scenes, loaded.network(scenes), count, SCENE, how
        )
    return found


def share(chosen: Tensor) -> str:
    """Return the share of scenes chosen, [n] booleans."""
    found = wilson_share(float(chosen.double().mean()), len(chosen))
    return f"{found.mean:.3f} [{found.low:.3f}, {found.high:.3f}]"


@torch.no_grad()
def main() -> None:
    """Print the rates of each estimator at each SNR."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=int, default=400, help="per SNR and K")
    names = ["sml", "lmmse_music", "lmmse_music+scoring", POSTERIOR_NAME]
    parser.add_argument("--methods", nargs="*", default=names)
    parser.add_argument("--model", type=Path, help="run or model folder of a network")
    parser.add_argument("--write", action="store_true", help=f"the table into {DOCUMENT}")
    args = parser.parse_args()
    torch.set_num_threads(1)
    heads = [f"{what}, {snr:g} dB" for what in ("doubles", "missed") for snr in SNR_DB]
    lines = ["| told K = 2 | " + " | ".join(heads) + " |", "|---" * (1 + len(heads)) + "|"]
    print("\n".join(lines))
    told = torch.full((args.scenes,), 2)
    for name, locate in localisers(args.methods, args.model).items():
        cells = []
        for count in (1, 2):
            for snr_db in SNR_DB:
                scenes = EvalScenes(SCENE, SEED).batch(
                    range(args.scenes), snr_db=snr_db, num_sources=count
                )
                found = locate(scenes, told)
                both = (found.resolved & found.active).sum(-1) == 2
                right = success(match(found, scenes.sources)) == 1
                cells.append(share(both if count == 1 else ~both[right]))
        lines.append(f"| {name} | {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    if args.write:
        command = f"`{shlex.join(['python', 'benchmarks/doubles.py', *sys.argv[1:]])}`"
        head = f"{command}; {args.scenes} scenes for each SNR and K, seed {SEED}"
        write_tables(DOCUMENT, {"doubles": f"{head}\n\n" + "\n".join(lines)})


if __name__ == "__main__":
    main()
