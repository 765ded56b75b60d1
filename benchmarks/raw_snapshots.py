"""The published design on raw snapshots: convolutions, a transformer, rank-K factors.

    python benchmarks/raw_snapshots.py [--steps 300] [--scenes 512] [--told channel]

Snapshots enter as real and imaginary parts, one token each, with the code they were taken under
and, if told, what the channel makes of it (Hᴴ y_l, which the published designs do not have). Two
convolutions along the snapshots, two transformer layers, a dense layer onto the N x K entries of a
factor. Trained like the networks here, on covariance NMSE; MUSIC reads the result. Kept to show
why networks here see maps; not product code. Chance is a place drawn uniformly from the region.
"""

import argparse
import os
import time

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["MKL_NUM_THREADS"] = "1"

import torch
from torch import Tensor, nn

from spaces.presets import LOCAL_SCENE
from trainer.config import SceneConfig, TrainConfig
from trainer.covariance import Covariance, normalise
from trainer.estimation import Estimates
from trainer.evaluation import Conditions, classical_estimator, evaluate, network_estimator
from trainer.intervals import bootstrap_mean, paired_difference
from trainer.scenes import Scenes, simulate

SNR_DB = (-10.0, -5.0, 0.0)
FRESH_SEED = 7_000_003
WIDTH = 128


class RawSnapshots(nn.Module):
    """Network from snapshots to a rank-K factor."""

    def __init__(self, scene: SceneConfig, told: str) -> None:
        super().__init__()
        self.told, self.shape = told, (scene.num_elements, scene.max_sources)
        inputs = scene.num_antennas + scene.num_elements * (2 if told == "channel" else 1)
        self.convolutions = nn.Sequential(
            nn.Conv1d(2 * inputs, WIDTH, 3, padding=1),
            nn.GELU(),
            nn.Conv1d(WIDTH, WIDTH, 3, padding=1),
        )
        layer = nn.TransformerEncoderLayer(WIDTH, 4, 2 * WIDTH, dropout=0.0, batch_first=True)
        self.transformer = nn.TransformerEncoder(layer, 2)
        self.head = nn.Linear(WIDTH, 2 * scene.num_elements * scene.max_sources)

    def forward(self, scenes: Scenes) -> Covariance:
        """R = F Fᴴ."""
        scale = scenes.snapshots.abs().square().mean((1, 2), keepdim=True).sqrt()
        snapshots = scenes.snapshots / scale
        parts = [snapshots, scenes.codes]
        if self.told == "channel":
            parts.append(scenes.codes.conj() * (snapshots @ scenes.channel.conj()))
        tokens = torch.cat([torch.cat([x.real, x.imag], -1) for x in parts], -1)
        seen = self.transformer(self.convolutions(tokens.mT).mT).mean(1)
        real, imaginary = self.head(seen).unflatten(-1, (2, *self.shape)).unbind(1)
        return normalise(factor=torch.complex(real, imaginary), eps_psd=1e-4)


def trained(config: TrainConfig, told: str, steps: int, rate: float) -> nn.Module:
    """Return the network after so many steps of the trainer's batches."""
    torch.manual_seed(config.seed)
    network = RawSnapshots(config.scene, told)
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate)
    generator = torch.Generator().manual_seed(config.seed + 1)
    for step in range(steps):
        scenes = simulate(
            config.scene,
            config.batch_size,
            snr_db=(config.snr_min_db, config.snr_max_db),
            generator=generator,
            device="cpu",
        )
        optimizer.zero_grad()
        loss = network(scenes).nmse(scenes).mean()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        if step % 100 == 99:
            print(f"  step {step + 1}: NMSE {loss.item():.3f} of its last batch", flush=True)
    return network.eval()


class Guess:
    """Places drawn uniformly from the region."""

    def __init__(self, scene: SceneConfig) -> None:
        self.scene, self.generator = scene, torch.Generator().manual_seed(0)

    def __call__(self, scenes: Scenes) -> Estimates:
        """As many as there are sources."""
        active = scenes.sources.active

        def uniform(low: float, high: float) -> Tensor:
            return low + (high - low) * torch.rand(active.shape, generator=self.generator)

        halves = (self.scene.azimuth_max_deg, self.scene.elevation_max_deg)
        azimuth, elevation = (uniform(-half, half).deg2rad() for half in halves)
        distance = uniform(self.scene.range_min_m, self.scene.range_max_m)
        return Estimates(azimuth, elevation, distance, active, active)


def main() -> None:
    """Train it and print its error beside that of a guess."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--scenes", type=int, default=512, help="per SNR and source number")
    parser.add_argument("--rates", type=float, nargs="+", default=[1e-3])
    parser.add_argument("--told", nargs="+", choices=("nothing", "channel"), default=["nothing"])
    args = parser.parse_args()
    torch.set_num_threads(1)
    config = TrainConfig.from_params(LOCAL_SCENE)
    conditions = Conditions(config.scene, FRESH_SEED, SNR_DB, args.scenes)
    chance = evaluate(Guess(config.scene), "chance", conditions, bound=False).scenes
    rows = {"chance": chance}
    music = classical_estimator("lmmse_music", config.scene)
    rows["lmmse_music"] = evaluate(music, "lmmse_music", conditions, bound=False).scenes
    for told in args.told:
        for rate in args.rates:
            started = time.process_time()
            network = trained(config, told, args.steps, rate)
            seconds = time.process_time() - started
            name = f"told {told}, rate {rate:g}, {seconds:.0f} CPU-s"
            estimate = network_estimator(network, config.scene)
            rows[name] = evaluate(estimate, name, conditions, bound=False).scenes
    points = len(conditions.points())
    print(f"\nmean success at {SNR_DB} dB, K = 1, 2; {args.scenes} scenes for each of {points}")
    # a scene is the unit of chance: conditions are averaged first
    units = {name: row.success.reshape(points, -1).mean(0) for name, row in rows.items()}
    for name, success in units.items():
        mean, gap = bootstrap_mean(success), paired_difference(success, units["chance"])
        print(f"{name:<40} {mean.mean:.3f} [{mean.low:.3f}, {mean.high:.3f}]", end="")
        print(f"   minus chance {gap.mean:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}]")


if __name__ == "__main__":
    main()
