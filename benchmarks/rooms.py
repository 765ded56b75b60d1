"""The rooms of the project and their imports, counted and drawn from the source.

    python benchmarks/rooms.py            # prints charters, graph and sizes
    python benchmarks/rooms.py --write    # puts charters and graph into docs/design.md

The graph has an arrow from a room to each room that it imports, without those that follow from
others (transitive reduction). `tests/test_layering.py` fails where an arrow points backwards.
"""

import argparse
import ast
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from documents import write_tables

from tests.import_graph import (
    MODULES,
    PACKAGES,
    ROOMS,
    crossings,
    files,
    may_import,
    room_of,
    tree_of,
)

DESIGN = Path(__file__).parents[1] / "docs" / "design.md"


def direct() -> dict[str, set[str]]:
    """Return the rooms that each room imports."""
    found: dict[str, set[str]] = {room: set() for room in ROOMS}
    for module, target in crossings():
        found[str(room_of(module))].add(str(room_of(target)))
    return found


def reduced(graph: dict[str, set[str]]) -> dict[str, set[str]]:
    """Return a graph without the arrows that follow from others."""

    @cache
    def reachable(room: str) -> frozenset[str]:
        return frozenset(graph[room]).union(*(reachable(r) for r in graph[room]))

    return {
        room: {r for r in there if not any(r in reachable(o) for o in there if o != r)}
        for room, there in graph.items()
    }


def longest_chain(graph: dict[str, set[str]]) -> list[str]:
    """Return the longest chain of rooms in which each imports the next."""

    @cache
    def chain(room: str) -> tuple[str, ...]:
        return (room, *max((chain(r) for r in sorted(graph[room])), key=len, default=()))

    return list(max((chain(room) for room in graph), key=len))


def mermaid(graph: dict[str, set[str]]) -> str:
    """Return the graph in the notation of Mermaid, which GitHub draws."""

    def name(room: str) -> str:
        return room.replace(".", "_")

    lines = ["```mermaid", "flowchart BT"]
    for package in ("trainer", "search"):
        own = [room for room in graph if room.startswith(package)]
        nodes = [f'    {name(room)}["{room.partition(".")[2]}"]' for room in own]
        lines += [f"  subgraph {package}", *nodes, "  end"]
    for room, there in graph.items():
        lines += [f"  {name(room)} --> {name(other)}" for other in sorted(there)]
    return "\n".join([*lines, "```"])


def charters() -> str:
    """Return every room with its charter as a table in Markdown."""
    rows = ["| room | what lives there |", "|---|---|"]
    for room in ROOMS:
        about = (ast.get_docstring(tree_of(MODULES[room])) or "").split("\n\n")[0]
        rows.append(f"| `{room}` | {' '.join(about.split())} |")
    return "\n".join(rows)


def sizes() -> str:
    """Return files and lines of every room and package, a line each."""
    own = {room: sorted(MODULES[room].parent.glob("*.py")) for room in ROOMS}
    own |= {f"{package} in all": files(package) for package in PACKAGES}
    rows = [
        f"{name:24}{len(there):4} files{lines_of(there):7} lines" for name, there in own.items()
    ]
    return "\n".join(rows)


def lines_of(paths: Iterable[Path]) -> int:
    """Return the number of lines of some files."""
    return sum(len(path.read_text().splitlines()) for path in paths)


def main() -> None:
    """Print everything, or write charters and graph."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--write", action="store_true", help="put charters and graph into docs/design.md"
    )
    args = parser.parse_args()
    graph = direct()
    backward = [(m, t) for m, t in crossings() if not may_import(str(room_of(m)), str(room_of(t)))]
    drawn = mermaid(reduced(graph))
    if args.write:
        write_tables(DESIGN, {"rooms": charters(), "imports": drawn})
        return
    print(charters(), drawn, sizes(), sep="\n\n")
    print(f"\nimports across rooms: {len(list(crossings()))}, of which backward: {len(backward)}")
    print("longest chain:", " > ".join(longest_chain(graph)))


if __name__ == "__main__":
    main()
