"""Contents of a recording, in words: sizes, SNR, antennas that fail, states of the codes."""

import torch

from trainer.scenes import Scenes

MOST_STATES = 16
"""Codes with more values than this are called continuous."""
SILENT = 1e-6
"""Energy of a silent antenna, relative to the median of all."""
CLIPPED = 0.01
"""Share of an antenna's values of I and Q at their largest that calls it clipped."""


def describe_scenes(scenes: Scenes) -> list[str]:
    """Return lines on the panel, sizes, SNR, antennas and codes of scenes."""
    panel, snr = scenes.panel, scenes.snr_db[torch.isfinite(scenes.snr_db)]
    waves = f"{panel.spacing_m / panel.wavelength_m:.3g} wavelengths"
    lattice = f"{panel.num_horizontal} x {panel.num_vertical}"
    if panel.positions_m is not None:
        lattice = f"{panel.num_elements} placed"
    sizes = f"{scenes.batch_size} scenes, {scenes.num_snapshots} snapshots"
    level = f"{float(snr.min()):.1f} ... {float(snr.max()):.1f} dB" if len(snr) else "not known"
    return [
        f"panel      {lattice} elements",
        f"spacing    {panel.spacing_m:g} m, {waves} of {panel.wavelength_m:g} m",
        f"recording  {sizes}, {scenes.num_antennas} antennas",
        f"SNR        {level}",
        *(
            f"antennas   {line}"
            for line in _failures(scenes) or ["none is silent, clipped or without channel"]
        ),
        f"codes      {_states(scenes)}",
    ]


def _failures(scenes: Scenes) -> list[str]:
    """Return a line for every antenna that is silent or clipped, or has no channel, in all scenes
    together."""
    values = torch.view_as_real(scenes.snapshots).abs().movedim(2, 0).flatten(1)  # [M, B L 2]
    energy = values.square().mean(-1)
    silent = (energy <= SILENT * energy.median()).nonzero().flatten().tolist()
    peak = values.amax(-1, keepdim=True)
    at_peak = (values >= peak * (1 - 1e-6)).double().mean(-1)
    # a few of a short recording may be equal by chance
    clipped = (at_peak > CLIPPED) & (values.shape[-1] * at_peak > 3) & (energy > 0)
    unreached = (scenes.channel == 0).all(-1).all(0).nonzero().flatten().tolist()
    return [
        *(f"number {number} is silent" for number in silent),
        *(f"number {number} has no channel: its row is 0" for number in unreached),
        *(
            f"number {number} is clipped in {100 * float(at_peak[number]):.0f} % of its values"
            for number in clipped.nonzero().flatten().tolist()
        ),
    ]


def _states(scenes: Scenes) -> str:
    moduli = scenes.codes.abs()
    thousandths = torch.view_as_real(scenes.codes.resolve_conj()).mul(1000).round()
    states = torch.view_as_complex(thousandths.flatten(0, -2).unique(dim=0).contiguous()) / 1000
    listed = ", ".join(f"{float(s.abs()):.3g}∠{float(s.angle().rad2deg()):.0f}°" for s in states)
    kind = f"{len(states)} states: {listed}" if len(states) <= MOST_STATES else "continuous"
    same = scenes.num_snapshots > 1 and bool((scenes.codes == scenes.codes[:, :1]).all())
    span = f"|c| {float(moduli.min()):.3g} ... {float(moduli.max()):.3g}"
    return f"{span}, {kind}" + (", the same in all snapshots" if same else "")
