"""House style: every public name has a docstring, which opens with a verb or a noun phrase."""

import ast
from collections.abc import Iterator

from tests.import_graph import MODULES, tree_of

OPENERS = {"what", "who", "whom", "whose", "whether", "how", "where", "when", "why", "which"}
Documented = ast.Module | ast.ClassDef | ast.FunctionDef


def documented() -> Iterator[tuple[str, Documented]]:
    """Yield every module, class and function of the project with its dotted name."""
    for module in MODULES:
        yield module, tree_of(MODULES[module])
        for node in ast.walk(tree_of(MODULES[module])):
            if isinstance(node, ast.ClassDef | ast.FunctionDef):
                yield f"{module}.{node.name}", node


def test_no_docstring_opens_with_a_question_word():
    found = [
        name
        for name, node in documented()
        if (text := ast.get_docstring(node)) and text.split()[0].lower().strip(",.:") in OPENERS
    ]
    assert found == []


def test_every_public_name_has_a_docstring():
    def public(body: list[ast.stmt], path: str) -> Iterator[str]:
        for node in body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
                if not ast.get_docstring(node):
                    yield f"{path}.{node.name}"
                if isinstance(node, ast.ClassDef):
                    yield from public(node.body, f"{path}.{node.name}")

    missing = [name for m in MODULES for name in public(tree_of(MODULES[m]).body, m)]
    missing += [m for m in MODULES if "." in m and not ast.get_docstring(tree_of(MODULES[m]))]
    assert missing == []
