"""A user's trainer is held to its contract, report by report, and goes on from its own state."""

import math
from functools import partial
from itertools import islice

import pytest
import torch

from trainer import Diverged, check_finite, user_code
from trainer.config import ConfigError
from trainer.failure import Cause
from trainer.own_trainer import OwnConfig, OwnState, OwnTrainer, split_objective
from trainer.user_code import CodeError, source_of

HEADER = "import numpy as np\n\n\ndef train(params, *, resume=None):\n    "
COUNTS = """for epoch in range(1 + (resume or 0), params["epochs"] + 1):
        yield {"epoch": epoch, "error": params["x"] / epoch, "state": epoch}"""
PARAMS = {"x": 6.0, "epochs": 3, "seed": 0}


@pytest.fixture
def written(tmp_path):
    """Return a trainer with this body of its function."""

    def write(body: str, objective: str = "error") -> OwnTrainer:
        (tmp_path / "mine.py").write_text(HEADER + body + "\n")
        return OwnTrainer(f"{tmp_path}/mine.py:train", None, objective)

    return write


def test_a_training_in_two_parts_is_that_in_one(written, tmp_path):
    own = written(COUNTS)
    whole = [(one.epoch, one.metrics["error"]) for one in own.reports(PARAMS)]
    assert whole == [(1, 6.0), (2, 3.0), (3, 2.0)]
    (first,) = islice(own.reports(PARAMS), 1)
    first.state.save(tmp_path / "state.pt")
    rest = own.reports(PARAMS, resume=OwnState.load(tmp_path / "state.pt"))
    assert [(one.epoch, one.metrics["error"]) for one in rest] == whole[1:]


def test_it_is_asked_for_no_more_epochs_than_its_budget_and_closed(written):
    body = """try:
        for epoch in range(1, 99):
            yield {"epoch": epoch, "error": 1, "state": epoch}
    finally:
        params["closed"].append(epoch)"""
    own, closed = written(body.replace('params["closed"]', "train.closed")), []
    own.check().func.closed = closed
    assert len(list(own.reports(PARAMS))) == 3
    assert closed == [3]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("return [1]", "a generator function, which yields its reports, but is none"),
        ("yield from ()", "3 reports, as `epochs` says, but it yielded none"),
        ("yield {'epoch': 1, 'error': 1, 'state': 0}", "it ended after 1"),
        ("yield 0.5", "mappings such as {'epoch': 1, 'error': 0.5, 'state': ...}, but it gave a"),
        ("yield {}", "reports with `epoch`, but the report of epoch 1 has nothing"),
        ("yield {'epoc': 1, 'error': 1, 'state': 0}", "Did you mean `epoc`"),
        ("yield {'epoch': 1, 'erorr': 1, 'state': 0}", "with `error`.*Did you mean `erorr`"),
        ("yield {'epoch': 1, 'error': 1}", "with `state`"),
        ("yield {'epoch': 1, 'error': 1, 'state': None}", "with which training would begin anew"),
        ("yield {'epoch': 2, 'error': 1, 'state': 0}", "epochs 1, 2, 3, ..., but 1 came as 2"),
        ("yield {'epoch': '1', 'error': 1, 'state': 0}", "but 1 came as '1'"),
        ("yield {'epoch': 1, 'error': '1', 'state': 0}", "`error` of epoch 1 is a str"),
        ("yield {'epoch': 1, 'error': np.ones(1), 'state': 0}", "ndarray. Call its .item()"),
        ("yield {'epoch': 1, 'error': True, 'state': 0}", "`error` of epoch 1 is a bool"),
    ],
)
def test_a_lie_is_told_by_rule_and_value(body, says, written):
    with pytest.raises(CodeError, match=says):
        list(written(body).reports(PARAMS))


def test_a_trainer_that_ignores_its_state_is_told(written):
    ignores = written(COUNTS.replace("(resume or 0)", "0"))
    with pytest.raises(CodeError, match=r"3 came as 1\. Go on from `resume`"):
        list(ignores.reports(PARAMS, resume=OwnState(2, 2)))


@pytest.mark.parametrize("number", ["nan", "inf", "-inf"])
def test_a_number_that_is_not_finite_ends_it_as_diverged(number, written):
    body = COUNTS.replace(
        '"error": ', f'"more": float("{number}") if epoch == 2 else 0, "error": '
    )
    found = written(body).reports(PARAMS)
    assert next(found).epoch == 1
    with pytest.raises(Diverged) as caught:
        next(found)
    failure = caught.value.failure
    assert (failure.cause, failure.term, failure.epoch) == (Cause.NONFINITE_LOSS, "more", 2)
    assert number in failure.message


def test_a_state_that_cannot_be_pickled_is_named(tmp_path):
    with pytest.raises(CodeError, match=r"that of epoch 4 is not .*lambda"):
        OwnState(4, {"network": lambda: 0}).save(tmp_path / "state.pt")
    assert not (tmp_path / "state.pt").exists()


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ({}, "epochs >= 1"),
        ({"epochs": 0}, "epochs >= 1"),
        ({"epochs": 1.5}, "epochs >= 1"),
        ({"epochs": 1, "x": math.nan}, "x is text, a finite number"),
        ({"epochs": 1, "x": True}, "For a switch use 0 and 1"),
        ({"epochs": 1, "x": {}}, "for a dict one name each"),
        ({"epochs": 1, "x": 10**400}, "x is text, a finite number"),
    ],
)
def test_parameters_are_plain(params, says):
    with pytest.raises(ConfigError, match=says):
        OwnConfig.from_params(params)


def test_an_objective_has_a_way():
    assert split_objective("loss") == split_objective("loss:min") == ("loss", 1.0)
    assert split_objective("accuracy:max") == ("accuracy", -1.0)
    for wrong in ("accuracy:more", ":max", "epoch"):
        with pytest.raises(ConfigError, match="--objective is NAME"):
            split_objective(wrong)


@pytest.mark.parametrize("where", ["loss", "gradient", "parameter", "nowhere"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_check_names_the_tensor_that_is_not_finite(where, value):
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(2, 1))
    loss = 1e30 * network(torch.ones(4, 3)).sum()  # squares of large numbers would overflow
    loss.backward()
    spoilt = network[1].weight
    if where == "loss":
        loss = loss * value
    elif where == "gradient":
        spoilt.grad[0, 1] = value
    elif where == "parameter":
        spoilt.data[0, 1] = value
    else:
        check_finite(loss, network.named_parameters(), step=5)
        return
    with pytest.raises(Diverged) as caught:
        check_finite(loss, network.named_parameters(), step=5)
    failure = caught.value.failure
    assert failure.cause == f"nonfinite_{where}"
    assert failure.tensor == ("" if where == "loss" else "1.weight")
    assert failure.step == 5
    assert "nan" not in str(caught.value)


class Counts:
    """A generator that is called as an object."""

    def __call__(self, params, *, resume=None):
        yield params, resume


async def waits(params, *, resume=None):
    """Train nothing."""
    yield params, resume


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (Counts(), ""),
        (partial(Counts()), ""),
        (partial(lambda params: None), r"called as train\(params, resume\), but takes"),
        (waits, "which yields its reports, but is async"),
        (lambda params, resume=None: {"epoch": 1}, "which yields its reports, but is none"),
    ],
)
def test_what_is_no_generator_is_refused_before_it_is_called(made, says, written):
    own = written("pass")
    user_code.load(own.reference)
    user_code._loaded[
        own.reference.rpartition(":")[0], source_of(own.reference).sha256
    ].train = made
    if not says:
        own.check()
        return
    with pytest.raises(CodeError, match=says):
        own.check()


def test_a_check_takes_sparse_complex_and_whole_numbers():
    embedding = torch.nn.Embedding(5, 3, sparse=True)
    embedding(torch.tensor([1, 2])).sum().backward()
    phase = torch.nn.Parameter(torch.ones(2, dtype=torch.complex64))
    phase.grad = torch.zeros_like(phase).conj()
    count = torch.nn.Parameter(torch.ones(2, dtype=torch.int64), requires_grad=False)
    named = [*embedding.named_parameters(), ("phase", phase), ("count", count)]
    check_finite(0.5, named)
    embedding.weight.grad = embedding.weight.grad * math.nan
    with pytest.raises(Diverged, match="nonfinite_gradient: term `total` in `weight`") as caught:
        check_finite(0.5, named)
    assert "eigengap" not in str(caught.value)
    phase.grad = torch.full_like(phase.data, complex(0, math.nan))
    with pytest.raises(Diverged, match="in `phase`"):
        check_finite(0.5, named[1:])
    with pytest.raises(Diverged, match="nonfinite_loss"):
        check_finite(math.inf, [])


def test_a_check_looks_at_buffers_and_refuses_what_has_no_names():
    network = torch.nn.BatchNorm1d(2)
    network.running_mean[0] = math.nan
    check_finite(0.5, network.named_parameters())
    with pytest.raises(Diverged, match="in `running_mean`"):
        check_finite(0.5, network.named_parameters(), named_buffers=network.named_buffers())
    for wrong in (network.parameters(), network, dict(network.named_parameters())):
        with pytest.raises(TypeError, match=r"Pass network.named_parameters\(\)"):
            check_finite(0.5, wrong)
