"""Units that were mistaken for metres, told from a panel's spacing in wavelengths."""

import math

LIGHT_M_PER_S = 299792458.0
LIKELY = (0.2, 0.75)
"""Spacings in wavelengths that panels usually have; half a wavelength is the commonest."""
CLOSEST = 0.04
"""Spacing in wavelengths below which a unit is mistaken, if another one makes it `LIKELY`."""
WAYS = 3
"""Most guesses that are told."""


def unit_hint(spacing_m: float, wavelength_m: float, *, placed: bool = False) -> str:
    """Return "Is spacing_m in ...? Then use spacing_m = ..." with the likeliest first, or "".

    A spacing that is usual as it is gives no reason to doubt its unit.

    Args:
        placed: spacing_m is that of positions_m, which are to be multiplied.
    """
    if LIKELY[0] <= spacing_m / wavelength_m <= LIKELY[1]:
        return ""
    spacings = {
        "in wavelengths": spacing_m * wavelength_m,
        "in centimetres": spacing_m / 100,
        "in millimetres": spacing_m / 1000,
    }
    wavelengths = {
        "in millimetres": wavelength_m / 1000,
        "in centimetres": wavelength_m / 100,
        "a frequency in Hz": LIGHT_M_PER_S / wavelength_m,
        "a frequency in MHz": LIGHT_M_PER_S / wavelength_m / 1e6,
        "a frequency in GHz": LIGHT_M_PER_S / wavelength_m / 1e9,
        "of a frequency_hz that was given in MHz": wavelength_m / 1e6,
        "of a frequency_hz that was given in GHz": wavelength_m / 1e9,
    }
    guesses = [("spacing_m", unit, new, new / wavelength_m) for unit, new in spacings.items()]
    guesses += [("wavelength_m", unit, new, spacing_m / new) for unit, new in wavelengths.items()]
    likely = [guess for guess in guesses if LIKELY[0] <= guess[3] <= LIKELY[1]]
    likely.sort(key=lambda guess: abs(math.log(2 * guess[3])))
    said = [
        f"Are positions_m {unit}? Then multiply them by {new / spacing_m:.6g}."
        if placed and name == "spacing_m"
        else f"Is {name} {unit}? Then use {name} = {new:.6g}."
        for name, unit, new, _ in likely
    ]
    return " ".join(said[:WAYS])
