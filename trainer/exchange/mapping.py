"""The mapping of files to a recording: a TOML file with an entry per array of the recording.

    wavelength_m = 0.1             a constant (a number, or a list); `frequency_hz` gives it, too
    channel = "identity"           for an array of antennas without a panel: the antennas are its
                                   elements (and `codes = 1`)
    [snapshots]                    an array that is read; keys:
    from = "Y"                       name in the files, of a complex or real array; or one of
    real = "I", imag = "Q"           two arrays
    magnitude = "A", phase = "P"     polar form; phase alone has modulus 1
    magnitude_db = "S", phase = "P"  20 log10 of the modulus
    states = "bits"                  numbers of states, with the reflection of each, in turn:
    table = [[1, 0], [0.7, 180]]       its modulus and phase in degrees
    axes = "antenna snapshot"        the array's axes (`axes`); default: those of the recording
    at = {frequency = 3}             entry to take along other axes, from 0
    conjugate = true                 where the phase grows with distance, exp(-jωt)
    degrees = true                   phase, azimuth or elevation is in degrees
    offset = -90                     added to real values, in the file's unit
    scale = 0.001                    factor to the recording's unit, after offset
    [place_m]                      Cartesian truth, in place of azimuth, elevation and range_m
    axes = "source coordinate"       with
    coordinates = "right up ahead"     the order of the coordinates; `-up` points down; also of
                                       positions_m
    origin = [0.1, 0.1, 0]             the panel's centre, in the file's coordinates and unit
    [sizes]                        sizes of axes that a group leaves open (`axes`)
    antenna = 4

docs/data.md explains them one by one.
"""

import tomllib
from pathlib import Path
from typing import Any

from trainer.config import ConfigError, did_you_mean, require

TARGETS: dict[str, tuple[str, ...]] = {
    "num_horizontal": (),
    "num_vertical": (),
    "spacing_m": (),
    "wavelength_m": (),
    "frequency_hz": (),
    "source_correlation": (),
    "positions_m": ("element", "coordinate"),
    "origin_m": ("coordinate",),
    "element_mask": ("element",),
    "snapshots": ("scene", "snapshot", "antenna"),
    "channel": ("scene", "antenna", "element"),
    "codes": ("scene", "snapshot", "element"),
    "azimuth": ("scene", "source"),
    "elevation": ("scene", "source"),
    "range_m": ("scene", "source"),
    "place_m": ("scene", "source", "coordinate"),
    "power": ("scene", "source"),
    "noise_variance": ("scene",),
    "noise_covariance": ("scene", "antenna", "other_antenna"),
}
"""What a mapping may give, with its axes. The panel comes first: others are arranged by it."""
DERIVED = {"frequency_hz": ("wavelength_m",), "place_m": ("azimuth", "elevation", "range_m")}
"""Targets that are no arrays of a recording, with those that they become."""
COMPLEX = ("snapshots", "channel", "codes", "noise_covariance")
"""Targets that may be complex."""
SOURCES = ("from", "real", "imag", "magnitude", "magnitude_db", "phase", "states")
"""Keys that name arrays of the files."""
REAL_SOURCES = {"real", "imag", "magnitude", "magnitude_db", "phase"}
"""Those that name real arrays."""
FORMS = (
    *({"from"}, {"real", "imag"}, {"magnitude", "phase"}, {"magnitude_db", "phase"}, {"phase"}),
    {"states", "table"},
)
"""Keys that together say what an array is made from."""
KEYS = {
    **dict.fromkeys((*SOURCES, "axes", "coordinates"), "text"),
    **dict.fromkeys(("table", "origin"), "a list"),
    **dict.fromkeys(("offset", "scale"), "a number"),
    **dict.fromkeys(("conjugate", "degrees"), "true or false"),
    "at": "a table",
}
"""Keys of an entry with the kinds of their values."""
KINDS: dict[type, str] = {
    **{str: "text", list: "a list", dict: "a table", bool: "true or false"},
    **dict.fromkeys((int, float), "a number"),
}

Entry = dict[str, Any]


def read_mapping(path: Path) -> Entry:
    """Return the entries of a mapping, checked.

    Raises:
        ConfigError: if it is no TOML file, or a key is unknown, missing or of the wrong type.
    """
    try:
        entries = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"--map is a TOML file that can be read, but {path} is not ({error}). "
            "docs/data.md has some to copy."
        ) from error
    for name, entry in entries.items():
        if name not in TARGETS and name != "sizes":
            raise ConfigError(
                f"`{name}` is no array of a recording; those are {', '.join(TARGETS)}."
                + did_you_mean(name, TARGETS)
            )
        if isinstance(entry, dict) and name != "sizes":
            _check_entry(name, entry)
    sizes = entries.get("sizes", {})
    whole = isinstance(sizes, dict) and all(type(n) is int and n > 0 for n in sizes.values())
    require(whole, "sizes are whole numbers by axis", f"{sizes}", "Write: [sizes] antenna = 4")
    for name, others in DERIVED.items():
        twice = [name, *(other for other in others if other in entries)]
        once = name not in entries or len(twice) == 1
        rule = f"{name} is given in place of {', '.join(others)}"
        require(once, rule, " and ".join(twice), "Drop one.")
    return entries


def _check_entry(name: str, entry: Entry) -> None:
    for key, value in entry.items():
        if key not in KEYS:
            raise ConfigError(
                f"`{name}.{key}` is no key of a mapping; those are {', '.join(KEYS)}."
                + did_you_mean(key, KEYS)
            )
        fits, rule = KINDS.get(type(value)) == KEYS[key], f"{name}.{key} is {KEYS[key]}"
        require(fits, rule, f"{value!r}", "docs/data.md has an example of every key.")
    given = entry.keys() & {*SOURCES, "table"}
    rule = f"{name} has " + "; or ".join(" and ".join(sorted(form)) for form in FORMS)
    require(given in FORMS, rule, f"{sorted(given)}", "Name what it is made from.")
    angles = "phase" in entry or name in ("azimuth", "elevation")
    fits = angles or not entry.get("degrees")
    require(fits, "degrees is for phase, azimuth and elevation", name, "Drop `degrees`.")
    for key, users in (("coordinates", ("place_m", "positions_m")), ("origin", ("place_m",))):
        fits = name in users or key not in entry
        require(fits, f"{key} is for {' and '.join(users)}", name, "Drop it.")
