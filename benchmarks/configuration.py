"""The table of all configuration fields, made from the code.

    python benchmarks/configuration.py            # prints it
    python benchmarks/configuration.py --write    # puts it into docs/configuration.md

Units, values and meanings are those of `trainer.config.FIELDS`, by which command lines are
checked; ranges are those of the presets.
"""

import argparse
from pathlib import Path

from documents import write_tables

import spaces
from trainer.config import FIELDS

DOCUMENT = Path(__file__).parents[1] / "docs" / "configuration.md"


def table() -> str:
    """Return the table of all fields, a row for each, in Markdown."""
    ranges = searched()
    lines = ["| field | unit | values | default | presets search | |", "|---|---|---|---|---|---|"]
    for name, one in FIELDS.items():
        cells = (
            f"`{name}`",
            one.unit,
            one.values,
            shown(one.default),
            "; ".join(ranges.get(name, ())),
            one.about,
        )
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def searched() -> dict[str, list[str]]:
    """Return the ranges of each field in all presets and branches, without repetition."""
    found: dict[str, list[str]] = {}
    for space in spaces.PRESETS.values():
        for name, one in space.ranges().items():
            texts = found.setdefault(name.partition("@")[0], [])
            if isinstance(one, spaces.Choice):
                known = texts[0].split(", ") if texts else []
                texts[:] = [", ".join(dict.fromkeys([*known, *map(str, one.choices)]))]
            elif (text := str(one).partition(" ")[2]) not in texts:
                texts.append(text)
    return found


def shown(default: object) -> str:
    """Return a default as a command line gives it; empty for none."""
    if isinstance(default, tuple):
        return ",".join(map(shown, default))
    if isinstance(default, float):
        return f"{default:g}"
    return "" if default is None else str(default)


def main() -> None:
    """Print or write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help=f"into {DOCUMENT.name}")
    if parser.parse_args().write:
        write_tables(DOCUMENT, {"fields": table()})
    else:
        print(table())


if __name__ == "__main__":
    main()
