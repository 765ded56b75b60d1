"""A user's space is searched like a preset; one that is broken or has changed is refused."""

import re
from pathlib import Path

import pytest

import spaces
from search.plan import SearchConfig
from search.records import RunStore
from search.run import main
from trainer.config import ConfigError
from trainer.user_code import CodeError

DOCUMENT = Path(__file__).parents[3] / "docs" / "own_code.md"
SPACE = """
from spaces import Space, blocks

def suggest(trial):
    drawn = blocks.optimizer(trial) | blocks.loading(trial)
    drawn["network.width"] = trial.suggest_int("network.width", 8, 24, step=8)
    return drawn

space = Space("mine", "For tests.", suggest, fixed={"epochs": 2}, trials=3)
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "my_space.py"
    path.write_text(SPACE)
    return path


def own(file, **more) -> SearchConfig:
    return SearchConfig("mine", 3, "x", space_from=f"{file}:space", **more)


def test_it_is_a_space_like_any_other(file):
    plan = own(file, settings=("network.width=16",), ranges=("eps_psd=1e-3:1e-2",))
    assert plan.space.parameters() == ["eps_psd", "network.width", "optimizer.learning_rate"]
    assert plan.space.ranges()["eps_psd"] == spaces.Float(1e-3, 1e-2)
    assert plan.template.epochs == 2
    assert SearchConfig(**plan.as_dict()) == plan


SAMPLERS_OWN = SPACE.replace('suggest_int("network.width"', 'suggest_int("wide"').replace(
    "    return",
    '    drawn["network.depth"] = trial.suggest_categorical("many", (1, 2, 3))\n    return',
)


@pytest.mark.parametrize(
    ("change", "widths", "depths"),
    [
        ({"settings": ("wide=16",)}, {16}, {1, 2, 3}),
        ({"ranges": ("wide=20:21",)}, {20, 21}, {1, 2, 3}),
        ({"choices": ("wide=8,24",)}, {8, 24}, {1, 2, 3}),
        ({"settings": ("many=2",)}, {8, 24}, {2}),
        ({"choices": ("many=2,3",)}, {8, 24}, {2, 3}),
    ],
)
def test_a_name_of_the_samplers_alone_is_changed_like_a_field(change, widths, depths, file):
    file.write_text(SAMPLERS_OWN)
    space = own(file, **change).space
    ends = (*space.branches(), *space.branches(upper=True))
    assert {drawn["network.width"] for drawn in ends} == widths
    assert {drawn["network.depth"] for drawn in ends} == depths


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"settings": ("wide=9",)}, "wide is int [8, 24] step 8"),
        ({"settings": ("many=x",)}, "many is one of 1, 2, 3"),
        ({"ranges": ("many=1:3",)}, "Use --choices"),
        ({"ranges": ("wide=a:b",)}, "--range wide is of ints, but got 'a'"),
        ({"ranges": ("wyde=1:2",)}, "Did you mean `wide`"),
    ],
)
def test_a_change_that_such_a_name_does_not_take_is_refused(change, says, file):
    file.write_text(SAMPLERS_OWN)
    with pytest.raises(ConfigError, match=re.escape(says)):
        own(file, **change)


def test_a_run_keeps_its_code_and_refuses_a_changed_file_by_name(
    file, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr("search.run._run_on_cluster", lambda *_, **__: 0)
    run = ["--out", str(tmp_path), "--space", f"{file}:space"]
    assert main([*run, "--name", "x"]) == 0
    store = RunStore.open(tmp_path / "x")
    assert store.plan["search"]["trials"] == 3
    assert (store.path / "code" / file.name).read_text() == SPACE
    resume = ["--resume", str(store.path)]
    assert main(resume) == 0
    file.write_text(SPACE.replace("8, 24", "8, 32"))
    capsys.readouterr()
    assert main(resume) == 2
    assert f"{file} has changed: its SHA-256" in capsys.readouterr().err
    assert main([*resume, "--accept-space-change"]) == 0
    assert main(resume) == 0
    file.unlink()
    assert main(resume) == 2
    assert "a run keeps a copy in its folder `code`" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ("import Space,", "import Spaces,", "ImportError: cannot import name 'Spaces'"),
        ("def suggest(trial):", "def suggest(trial)", "expected ':' (my_space.py, line 4)"),
        ("space = ", "spaces = ", "has no `space`. Did you mean `spaces`"),
        ("space = Space(", "space = dict; Space(", "must be a spaces.Space, but is a type"),
        ("step=8)", "stepp=8)", "unexpected keyword argument 'stepp', line 6 of my_space.py"),
        ('drawn["network.width"]', 'drawn["network.widht"]', "Did you mean `network.width`"),
        ('"network.width", 8, 24, step=8', '"network.width", 0, 4', "width >= 1"),
        ("trials=3", 'trials=3, anchors=({"eps_psd": 1},)', "an anchor must give"),
        ("    return drawn\n", "", "must return a dict of fields and values, but returned None"),
        ('"epochs": 2', '"loss.term": "a.py:b"', "must be a configuration by itself"),
        (
            'Space("mine',
            'Space("a/mine',
            "must be letters, digits, dots, dashes and underscores, but is 'a/mine'",
        ),
        ('"epochs": 2', '"epocs": 2', "Did you mean `epochs`"),
    ],
)
def test_a_broken_space_is_refused_with_its_line(before, after, says, file):
    assert before in SPACE
    file.write_text(SPACE.replace(before, after))
    with pytest.raises(CodeError) as refused:
        own(file)
    assert says in str(refused.value)


@pytest.mark.parametrize(
    ("reference", "says"),
    [
        ("nowhere.py:space", "a file that can be read"),
        ("no_such_package.spaces:space", "a module that can be imported"),
        ("my_space.py", "named as file.py:name"),
        ("spaces.presets:OFF", "must be a spaces.Space"),
    ],
)
def test_a_reference_to_nothing_is_refused_in_one_line(reference, says, capsys):
    assert main(["--space", reference, "--dry-run"]) == 2
    (said,) = capsys.readouterr().err.strip().splitlines()
    assert says in said


def test_the_space_of_the_documents_is_one(tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    (tmp_path / "my_space.py").write_text(code)
    plan = SearchConfig("mine", 3, "x", space_from=f"{tmp_path}/my_space.py:space")
    assert plan.template.scene.num_elements == 64


def test_a_space_of_a_module_is_imported(capsys):
    assert main(["--space", "tests.search.plan.small_space:SPACE", "--dry-run"]) == 0
    assert "preset     small: For tests." in capsys.readouterr().out
