"""Every installed script is a `main`: --help exits with 0, bad usage returns 2 in one line."""

import importlib
import tomllib
from pathlib import Path

import pytest

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"
SCRIPTS = tomllib.loads(PYPROJECT.read_text())["project"]["scripts"]


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_behaves_as_its_module_does(script, capsys):
    module, _, function = SCRIPTS[script].partition(":")
    main = getattr(importlib.import_module(module), function)
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    name = module.removesuffix(".__main__")
    assert capsys.readouterr().out.startswith(f"usage: python -m {name} ")
    assert main(["--nonsense"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"{name}: ")
    assert said.err.count("\n") == 1
