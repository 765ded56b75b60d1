"""TensorBoard's event files as its reader takes them."""

import struct
from collections import defaultdict
from pathlib import Path

from tensorboardX.proto import event_pb2


def events(folder: Path) -> list[event_pb2.Event]:
    """Return the events of a trial in the order of TensorBoard's reader, the TFRecord framing
    being length, checksum, content, checksum."""
    found = []
    for file in sorted(folder.iterdir()):
        content = file.read_bytes()
        while content:
            (size,) = struct.unpack("<Q", content[:8])
            found.append(event_pb2.Event.FromString(content[12 : 12 + size]))
            content = content[16 + size :]
    return found


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Return step and value by tag; a session that starts discards what is not before it."""
    found: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for event in events(folder):
        if event.session_log.status == event.session_log.START:
            for tag, points in found.items():
                found[tag] = [point for point in points if point[0] < event.step]
        for value in event.summary.value:
            if value.HasField("simple_value"):
                found[value.tag].append((event.step, value.simple_value))
    return found
