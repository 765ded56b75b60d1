"""Suggestions by (seed, number), the states that Optuna is told, and `optuna.log`."""

import math

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from search.plan.config import SAMPLERS, SearchConfig
from search.plan.outcome import WORST_OBJECTIVE, Outcome
from search.suggest.samplers import at_quantile, sampler_for
from search.suggest.study import EndedTrial, OptunaLog, frozen_trial, new_study, state_and_values


def plan(**more):
    return SearchConfig(**({"preset": "local", "trials": 30, "name": "x"} | more))


def draw(plan, numbers, study=None):
    """Return the configurations of trials with these numbers, each told a made-up value."""
    study = study or new_study(plan)
    drawn = []
    for number in numbers:
        study.sampler = sampler_for(plan, number)
        trial = study.ask()
        drawn.append(plan.space.suggest(trial))
        study.tell(trial, math.sin(number) ** 2)
    return drawn, study


def ended_trial(number, outcome=Outcome.COMPLETED, plan=plan(), **more):  # noqa: B008
    study = new_study(plan)
    study.sampler = optuna.samplers.RandomSampler(seed=number)
    trial = study.ask()
    plan.space.suggest(trial)
    values = {1: 0.5, 2: 0.4 + 0.01 * number}
    given = {"values": values, "cost": 2.0, "outcome": outcome} | more
    return EndedTrial(f"t{number:04d}", number, trial.params, **given)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_equal_seeds_draw_equal_trials_and_others_do_not(sampler):
    numbers = range(4 if sampler == "gp" else 12)
    first, _ = draw(plan(sampler=sampler), numbers)
    assert draw(plan(sampler=sampler), numbers)[0] == first
    assert draw(plan(sampler=sampler, seed=1), numbers)[0] != first


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_no_two_trials_draw_the_same_before_a_model_is_fitted(sampler):
    rates = [
        trial["optimizer.learning_rate"] for trial in draw(plan(sampler=sampler), range(6))[0]
    ]
    assert len(set(rates)) == len(rates)


@pytest.mark.parametrize("sampler", ["random", "qmc"])
def test_a_trial_depends_on_seed_and_number_alone(sampler):
    whole, _ = draw(plan(sampler=sampler), range(20))
    assert draw(plan(sampler=sampler), [17, 3, 11])[0] == [whole[17], whole[3], whole[11]]


@pytest.mark.parametrize("sampler", ["tpe", "cmaes"])
def test_a_restarted_sampler_draws_what_an_undisturbed_one_draws(sampler):
    searched = plan(sampler=sampler)
    whole, study = draw(searched, range(20))
    restarted = new_study(searched)
    restarted.add_trials(study.trials[:12])
    assert draw(searched, range(12, 20), restarted)[0] == whole[12:]


def test_a_sampler_seeded_anew_draws_what_a_new_one_draws():
    """Two trials at a time, told in another order than asked, some of them stopped or failed."""
    states = [optuna.trial.TrialState[s] for s in ("COMPLETE", "PRUNED", "COMPLETE", "FAIL")]

    def drawn(reuse):
        searched = plan()
        study, sampler, found = new_study(searched), None, []
        for first in range(0, 24, 2):
            pair = []
            for number in (first, first + 1):
                sampler = sampler_for(searched, number, sampler if reuse else None)
                study.sampler = sampler
                pair.append(study.ask())
                found.append(searched.space.suggest(pair[-1]))
            for trial in reversed(pair):
                state, value = states[trial.number % 4], math.sin(trial.number) ** 2
                trial.report(value, 1)
                study.tell(trial, value if state.name == "COMPLETE" else None, state=state)
        return found

    assert drawn(reuse=True) == drawn(reuse=False)


def test_sobol_points_fill_every_dimension_evenly():
    """A scrambled Sobol sequence has one of its first 2^k points in each interval of 2^-k."""
    sampler, names = plan(sampler="qmc"), sorted(plan().space.ranges())
    points = [sampler_for(sampler, n)._point for n in range(16)]
    for name in names:
        assert sorted(int(16 * p[name]) for p in points) == list(range(16))


def test_quantiles_of_a_parameters_law():
    assert at_quantile(FloatDistribution(1e-4, 1e-2, log=True), 0.5) == pytest.approx(1e-3)
    assert at_quantile(FloatDistribution(2.0, 4.0), 0.25) == 2.5
    assert [at_quantile(IntDistribution(8, 32, step=8), u) for u in (0, 0.26, 0.99)] == [8, 16, 32]
    assert at_quantile(CategoricalDistribution(("a", "b")), 0.5) == "b"


def test_samplers_that_read_finished_trials_only_are_told_what_to_avoid():
    stopped, diverged = ended_trial(0, Outcome.STOPPED), ended_trial(1, Outcome.DIVERGED)
    assert state_and_values(stopped, plan(), to_sampler=True)[0].name == "PRUNED"
    for sampler in ("gp", "cmaes"):
        gp = plan(sampler=sampler)
        assert state_and_values(stopped, gp, to_sampler=True) == (
            optuna.trial.TrialState.COMPLETE,
            [0.4],
        )
        assert state_and_values(diverged, gp, to_sampler=True) == (
            optuna.trial.TrialState.COMPLETE,
            [WORST_OBJECTIVE],
        )
        assert state_and_values(diverged, gp, to_sampler=False)[0].name == "PRUNED"
    assert (
        state_and_values(ended_trial(2, Outcome.LOST), plan(sampler="gp"), to_sampler=True)[0].name
        == "FAIL"
    )


@pytest.mark.parametrize("outcome", Outcome)
def test_a_trial_told_live_and_one_told_after_a_restart_are_the_same(outcome):
    ended = ended_trial(3, outcome, cause="why")
    live = new_study(plan())
    live.enqueue_trial(dict(ended.sampler))
    trial = live.ask()
    plan().space.suggest(trial)
    for epoch, value in ended.values.items():
        trial.report(value, step=epoch)
    state, values = state_and_values(ended, plan(), to_sampler=True)
    trial.set_constraint("aborted", float(outcome in (Outcome.DIVERGED, Outcome.OUT_OF_MEMORY)))
    live.tell(trial, values, state=state)
    (one,), two = live.trials, frozen_trial(ended, plan(), to_sampler=True)
    for what in ("state", "params", "distributions", "intermediate_values", "constraints"):
        assert getattr(one, what) == getattr(two, what), what
    if two.values is not None:
        assert one.values == two.values


def test_two_objectives_are_told_with_their_cost():
    both = plan(objectives=("capped_error", "cost"))
    trial = frozen_trial(ended_trial(1), both, to_sampler=False)
    assert trial.values == pytest.approx([0.41, 2.0])
    assert (
        frozen_trial(ended_trial(2, Outcome.STOPPED), both, to_sampler=False).state.name
        == "PRUNED"
    )
    study = new_study(both)
    study.add_trials([frozen_trial(ended_trial(n), both, to_sampler=True) for n in range(12)])
    draw_two = sampler_for(both, 12)
    study.sampler = draw_two
    both.space.suggest(study.ask())
    assert study.best_trials


def test_the_log_is_made_anew_whatever_a_killed_driver_left(tmp_path):
    journal = tmp_path / "optuna.log"
    log = OptunaLog(plan(), journal, [ended_trial(0), ended_trial(1, Outcome.DIVERGED)])
    log.add(ended_trial(2))
    journal.write_bytes(journal.read_bytes()[:-40])  # a torn line
    (tmp_path / "optuna.log.lock").symlink_to(journal)  # and a lock that nobody will release
    OptunaLog(plan(), journal, [ended_trial(n) for n in range(3)])
    trials = opened(journal).trials
    assert [t.user_attrs["trial_id"] for t in trials] == ["t0000", "t0001", "t0002"]


def opened(journal):
    """The study as another program's Optuna opens it, such as optuna-dashboard."""
    backend = optuna.storages.journal.JournalFileBackend(str(journal))
    return optuna.load_study(study_name="x", storage=optuna.storages.JournalStorage(backend))


def note(study, number=None):
    """Return optuna-dashboard's note on the study, or on the trial of that number."""
    about = "" if number is None else f"{study.trials[number]._trial_id}:"
    attributes = study._storage.get_study_system_attrs(study._study_id)
    parts = [v for k, v in attributes.items() if k.startswith(f"dashboard:{about}note_str:")]
    return "".join(parts) if f"dashboard:{about}note_ver" in attributes else None


def test_what_people_add_to_the_study_survives_whatever_order_trials_are_then_in(tmp_path):
    """A log is in the order in which trials ended; made anew, in that of their numbers. A trial
    whose end the killed driver had not written into the tables comes last."""
    journal = tmp_path / "optuna.log"
    log = OptunaLog(plan(), journal)
    for number in (3, 1, 0, 2):
        log.add(ended_trial(number))
    study = opened(journal)
    study.set_user_attr("owner", "Müller")
    add = study._storage.set_study_system_attr
    for about, text in {"": "of the study", "0:": "of t0003", "1:": "of t0001"}.items():
        add(study._study_id, f"dashboard:{about}note_ver", 2)
        add(study._study_id, f"dashboard:{about}note_str:0", "an earlier text")
        add(study._study_id, f"dashboard:{about}note_str:0", text)
    for _ in range(2):  # whatever survives once survives again
        log = OptunaLog(plan(), journal, [ended_trial(number) for number in (0, 1, 2)])
        log.add(ended_trial(3))
        study = opened(journal)
        assert [t.user_attrs["trial_id"][-1] for t in study.trials] == ["0", "1", "2", "3"]
        assert study.user_attrs == {"owner": "Müller"}
        assert note(study) == "of the study"
        assert [note(study, n) for n in range(4)] == [None, "of t0001", None, "of t0003"]


def test_trials_in_the_log_have_their_own_begin_and_end(tmp_path):
    OptunaLog(plan(), tmp_path / "optuna.log", [ended_trial(0, span=(1e9, 1e9 + 90))])
    (trial,) = opened(tmp_path / "optuna.log").trials
    assert trial.datetime_start.timestamp() == 1e9
    assert trial.duration.total_seconds() == 90


def test_a_trial_that_the_space_cannot_draw_is_refused():
    with pytest.raises(ValueError, match="must lie"):
        frozen_trial(
            EndedTrial(
                "t",
                0,
                ended_trial(0).sampler | {"eps_psd": 1e9},
                Outcome.COMPLETED,
                values={1: 0.1},
            ),
            plan(),
            to_sampler=True,
        )
