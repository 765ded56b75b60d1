"""Axes of an array by name: "antenna snapshot", "scene (column -row)", "snapshot antenna iq".

    a b      names, in the order of the array's axes; axes of length one may be left out
    (a b)    one axis that runs through both, b fastest
    -a       a runs backwards
    iq       two entries, real and imaginary part
    row column   of an element of the panel, in place of `element`; row 0 is the lowest, column 0
             the leftmost, seen as azimuth grows to the right

Sizes come from the array, `iq` (2), the panel (`row`, `column`), and, where a group leaves two of
them open, from the mapping's table `sizes`.
"""

import math
import re
from collections.abc import Mapping

import numpy as np

from trainer.config import ConfigError, did_you_mean, require

Arrays = dict[str, np.ndarray]


def arrange(
    array: np.ndarray,
    axes: str,
    target: tuple[str, ...],
    sizes: Mapping[str, int],
    at: Mapping[str, int],
    name: str,
) -> np.ndarray:
    """Return an array with its axes in the order of `target`, real and imaginary parts joined.

    Axes of `target` that the array has not are added with length one, except `scene`.

    Args:
        axes: of the array (module docstring).
        sizes: of axes by name.
        at: entry to take along each axis that is not in `target`.
        name: of the array of the recording, for messages.

    Raises:
        ConfigError: if the axes do not fit the array or the target.
    """
    groups = _parse(axes, name)
    names = [word.lstrip("-") for group in groups for word in group]
    pair = "element" in target and {"row", "column"} <= set(names)
    known = {*target, *at, "iq"} | ({"row", "column"} if pair else set())
    for word in names:
        if word not in known:
            near = did_you_mean(word, known)
            raise ConfigError(
                f"`{name}.axes` names {', '.join(target)}, iq and those of `at`, but has "
                f"{word!r}.{near or ' Rename it, or say which entry to take: at = {' + word}"
                + ("" if near else " = 0}.")
            )
    once = len(set(names)) == len(names)
    require(once, f"{name}.axes names no axis twice", f"{axes!r}", "Correct it.")
    missing = [word for word in at if word not in names]
    require(not missing, f"{name}.at names axes of `axes`", f"{missing}", "Name them in `axes`.")
    split = _split(array, groups, {**sizes, "iq": 2}, name, axes)
    for place, word in enumerate(word for group in groups for word in group):
        if word.startswith("-"):
            split = np.flip(split, place)
    for word, entry in at.items():
        place = names.index(word)
        fits = type(entry) is int and 0 <= entry < split.shape[place]
        rule = f"{name}.at.{word} is one of {split.shape[place]} entries, from 0"
        require(fits, rule, f"{entry!r}", "Correct it.")
        split = np.asarray(split.take(entry, axis=place))
        names.remove(word)
    if "iq" in names:
        real, imaginary = np.moveaxis(split, names.index("iq"), 0).astype(float)
        split = real + 1j * imaginary
        names.remove("iq")
    order = [t for t in _with_pair(target, pair) if t in names]
    split = split.transpose([names.index(t) for t in order])
    if pair:
        place = order.index("row")
        shape = (*split.shape[:place], -1, *split.shape[place + 2 :])
        split = split.reshape(shape)
        order[place : place + 2] = ["element"]
    for place, word in enumerate(t for t in target if t in order or t != "scene"):
        if word not in order:
            split = np.expand_dims(split, place)
    return split


def _parse(axes: str, name: str) -> list[list[str]]:
    """Return the words of each axis of the array."""
    valid = re.fullmatch(r"\s*((\([\s\w-]+\)|-?\w+)\s*)+", axes)
    example = 'Write for example "antenna snapshot" or "scene (row column)".'
    require(valid is not None, f"{name}.axes is a list of names", f"{axes!r}", example)
    return [found.strip("()").split() for found in re.findall(r"\([^)]*\)|[^\s()]+", axes)]


def _split(
    array: np.ndarray, groups: list[list[str]], sizes: Mapping[str, int], name: str, axes: str
) -> np.ndarray:
    """Return the array with an axis for every name."""
    if array.ndim != len(groups):  # MATLAB has no vectors, and drops a last axis of length one
        long = [size for size in array.shape if size != 1]
        fits = "Name every axis in order; those of length one may be left out."
        rule = f"{name}.axes = {axes!r} names the axes of the array"
        fitting = len(long) == len(groups) or array.size == 1
        require(fitting, rule, f"shape {list(array.shape)}", fits)
        array = array.reshape(long if array.size > 1 else [1] * len(groups))
    shape: list[int] = []
    for size, group in zip(array.shape, groups, strict=True):
        words = [word.lstrip("-") for word in group]
        open_words = [word for word in words if word not in sizes] if len(words) > 1 else words
        known = math.prod(sizes[word] for word in words if word not in open_words)
        require(
            len(open_words) <= 1,
            f"{name}.axes leaves one size of ({' '.join(group)}) open",
            f"{open_words}",
            f"Give the others: [sizes] {open_words[0]} = ..." if open_words else "",
        )
        require(
            size % known == 0 and (bool(open_words) or size == known),
            f"({' '.join(group)}) has as many entries as its axes together",
            f"{size} entries for {known}",
            "Correct the sizes, the panel, or the order of the axes.",
        )
        shape += [size // known if word in open_words else sizes[word] for word in words]
    return array.reshape(shape)


def _with_pair(target: tuple[str, ...], pair: bool) -> list[str]:
    split = {"element": ["row", "column"]} if pair else {}
    return [word for t in target for word in split.get(t, [t])]
