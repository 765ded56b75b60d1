"""The commands of the documents that train one configuration, or ask its limit, are lawful."""

import re

import pytest

from tests.import_graph import ROOT
from trainer.__main__ import parser, read_config

COMMANDS = [
    (file.name, command.strip())
    for file in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
    for command in re.findall(
        r"python -m trainer ((?:train|limit) [^`\n#|]+)", file.read_text(encoding="utf-8")
    )
]


@pytest.mark.parametrize(("document", "command"), COMMANDS)
def test_a_documented_configuration_is_lawful(document: str, command: str) -> None:
    read_config(parser().parse_args(command.split()))


def test_the_documents_have_such_commands() -> None:
    assert {"README.md", "configuration.md"} <= {document for document, _ in COMMANDS}
