"""The table of outcomes, and the classification of trials by their last report and error."""

import re
from pathlib import Path

import optuna
import pandas as pd
import pytest

from search.plan.outcome import (
    RULES,
    Outcome,
    classify,
    classify_error,
    crash_signature,
    exception_type,
)
from search.records.best import best_trials

TRACEBACK = """\x1b[36mray::ImplicitFunc.train()\x1b[39m (pid=412, ip=10.0.0.7)
  File "/site/ray/tune/trainable.py", line 331, in train
    raise skipped from exception_cause(skipped)
  File "/home/ada/project/trainer/losses.py", line 81, in eigengap_loss
    except torch.OutOfMemoryError: ...
{}
"""

NODE_DEATH = """The actor died unexpectedly before finishing this task.
\tclass_name: ImplicitFunc
\tactor_id: 0a1b
\tip: 10.0.0.7
The actor is dead because its node has died. Node Id: 5f
\tthe actor's node was terminated: health check failed due to missing too many heartbeats
"""

WORKER_DEATH = """The actor died unexpectedly before finishing this task.
The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit
detail: Worker unexpectedly exits with a connection error code 2. (1) The process is killed by
SIGKILL by OOM killer due to high memory usage. (2) ray stop --force is called.
"""

CREATION = """The actor died because of an error raised in its creation task, ray::__init__()
ImportError: no module named trainer
"""

IMPORT = """The actor died unexpectedly before finishing this task.
The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR
RuntimeError: The actor with name ImplicitFunc failed to import on the worker.
ModuleNotFoundError: No module named 'trainer'
"""

MEMORY_MONITOR = """The actor died unexpectedly before finishing this task.
Task was killed due to the node running low on memory.
"""


def test_every_outcome_has_one_rule_and_an_optuna_state():
    assert set(RULES) == set(Outcome)
    for rule in RULES.values():
        assert rule.optuna_state in optuna.trial.TrialState.__members__
        assert rule.about


def test_the_table_says_what_the_search_relies_on():
    def those(predicate):
        return {o for o in Outcome if predicate(RULES[o])}

    # Only full fidelity is COMPLETE: best value and importances must not mix fidelities.
    assert those(lambda r: r.optuna_state == "COMPLETE") == {Outcome.COMPLETED}
    assert those(lambda r: r.constraint) == {Outcome.DIVERGED, Outcome.OUT_OF_MEMORY}
    assert those(lambda r: r.constraint) <= those(lambda r: r.optuna_state == "PRUNED")
    assert those(lambda r: not r.failed) == {Outcome.COMPLETED, Outcome.STOPPED}
    assert {o: RULES[o].ends_search_at for o in those(lambda r: r.ends_search_at)} == {
        Outcome.CRASHED: 3,
        Outcome.INVALID: 1,
    }
    assert those(lambda r: r.optuna_state == "FAIL") == {
        Outcome.LOST,
        Outcome.TIMED_OUT,
        Outcome.CRASHED,
        Outcome.INVALID,
    }


@pytest.mark.parametrize("outcome", Outcome)
def test_a_trainings_own_last_word_wins(outcome):
    metrics = {"outcome": outcome.value, "objective": 0.5}
    assert classify(metrics) is outcome
    assert classify(metrics, NODE_DEATH, "ActorDiedError") is outcome


def test_silence_after_a_report_is_a_stop_and_before_any_report_a_loss():
    assert classify({"outcome": "", "epoch": 2}) is Outcome.STOPPED
    assert classify({"epoch": 2}) is Outcome.STOPPED
    assert classify(None) is Outcome.LOST
    assert classify({}) is Outcome.LOST


@pytest.mark.parametrize(
    ("error", "error_type", "outcome"),
    [
        (TRACEBACK.format("ValueError: 3 scenes"), "RayTaskError(ValueError)", Outcome.CRASHED),
        (TRACEBACK.format("ValueError: 3 scenes"), None, Outcome.CRASHED),
        (TRACEBACK.format("trainer.config.ConfigError: `eps_psd >= 0`"), None, Outcome.INVALID),
        ("`eps_psd >= 0` must hold", "ConfigError", Outcome.INVALID),
        (TRACEBACK.format("trainer.failure.Diverged: nonfinite_loss"), None, Outcome.DIVERGED),
        (
            TRACEBACK.format("torch.OutOfMemoryError: CUDA out of memory. Tried 2 GiB"),
            "RayTaskError(OutOfMemoryError)",
            Outcome.OUT_OF_MEMORY,
        ),
        (
            TRACEBACK.format("RuntimeError: CUDA error: out of memory"),
            "RayTaskError(RuntimeError)",
            Outcome.OUT_OF_MEMORY,
        ),
        (
            TRACEBACK.format(
                "RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"
            ),
            "RayTaskError(RuntimeError)",
            Outcome.OUT_OF_MEMORY,
        ),
        (
            TRACEBACK.format("RuntimeError: cusolver error: CUSOLVER_STATUS_ALLOC_FAILED"),
            None,
            Outcome.OUT_OF_MEMORY,
        ),
        (
            TRACEBACK.format("RuntimeError: DefaultCPUAllocator: can't allocate memory"),
            None,
            Outcome.OUT_OF_MEMORY,
        ),
        (TRACEBACK.format("MemoryError"), None, Outcome.OUT_OF_MEMORY),
        (MEMORY_MONITOR, "ActorDiedError", Outcome.OUT_OF_MEMORY),
        (NODE_DEATH, "ActorDiedError", Outcome.LOST),
        (NODE_DEATH, None, Outcome.LOST),
        (WORKER_DEATH, "ActorDiedError", Outcome.LOST),
        ("The actor 0a1b is unavailable: socket closed. The task may ...", None, Outcome.LOST),
        ("", "NodeDiedError", Outcome.LOST),
        (CREATION, "ActorDiedError", Outcome.CRASHED),
        (IMPORT, "ActorDiedError", Outcome.CRASHED),
    ],
)  # fmt: skip
def test_errors(error, error_type, outcome):
    assert classify(None, error, error_type) is outcome
    assert classify({"outcome": "", "epoch": 3}, error, error_type) is outcome


def test_a_source_line_that_names_memory_is_not_evidence():
    """The traceback quotes `except torch.OutOfMemoryError`; the error itself is another."""
    assert classify_error(TRACEBACK.format("KeyError: 'width'")) is Outcome.CRASHED


def test_exception_type_is_the_last_one_named():
    chained = (
        "Traceback (most recent call last):\nKeyError: 1\n\nDuring handling of the above "
        "exception, another exception occurred:\n\nTraceback (most recent call last):\n"
        '  File "a.py", line 3, in f\ntrainer.config.ConfigError: no'
    )
    assert exception_type(chained) == "ConfigError"
    assert exception_type("nothing of the kind") == ""


def test_signature_joins_one_bug_and_parts_two():
    one = TRACEBACK.format("ValueError: 3 scenes, but got 7")
    same = TRACEBACK.format("ValueError: 5 scenes, but got 9").replace("/home/ada", "/mnt")
    elsewhere = one.replace("line 81", "line 92")
    other_type = TRACEBACK.format("KeyError: 3")
    assert (
        crash_signature(one)
        == crash_signature(same)
        == "ValueError at losses.py:81 in eigengap_loss"
    )
    assert (
        len({crash_signature(one), crash_signature(elsewhere), crash_signature(other_type)}) == 3
    )
    assert crash_signature("worker 12 left") == crash_signature("worker 7 left")


def test_an_unknown_word_is_refused_with_a_suggestion():
    with pytest.raises(ValueError, match="Did you mean `diverged`"):
        classify({"outcome": "divergd"})


def test_the_ray_exceptions_named_exist():
    """Read as text: this file, like the module, works where Ray cannot be imported."""
    from importlib.util import find_spec

    from search.plan.outcome import LOST_TYPES

    spec = find_spec("ray")
    if spec is None or spec.origin is None:
        pytest.skip("ray is not installed")
    text = (Path(spec.origin).parent / "exceptions.py").read_text()
    assert set(re.findall(r"^class (\w+)", text, re.MULTILINE)) >= {*LOST_TYPES.split("|")}


def test_only_what_optuna_is_told_as_complete_can_be_best():
    columns = {"trial_id": [*Outcome], "number": range(len(Outcome)), "outcome": [*Outcome]}
    best = best_trials(pd.DataFrame(columns | {"objective": 0.5, "guard_above": None}))
    assert best == [o for o in Outcome if RULES[o].optuna_state == "COMPLETE"]


@pytest.mark.parametrize("outcome", Outcome)
def test_the_documents_have_the_table_of_the_code(outcome):
    document = Path(__file__).parents[3] / "docs" / "search.md"
    rows = [r for r in document.read_text().splitlines() if r.startswith("| `")]
    (row,) = [r for r in rows if r.startswith(f"| `{outcome.value}`")]
    _, _, told, again, ends, _ = [cell.strip() for cell in row.split("|")]
    rule = RULES[outcome]
    assert rule.optuna_state in told
    assert ("constraint" in told) == rule.constraint
    assert (again.partition(":")[0] != "no") == (outcome is Outcome.LOST)
    assert (ends == "no") == (rule.ends_search_at is None)
