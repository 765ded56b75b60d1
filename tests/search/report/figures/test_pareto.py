"""The Pareto front has the trials that no other beats in both error and cost."""

import random

from search.records.store import RunStore
from search.report.data.runs import load
from search.report.figures.pareto import draw_front, front, text
from tests.stored import ended_trial


def run_with(tmp_path, points):
    store = RunStore.create(tmp_path / "x", parameters={}, plan={"search": {}})
    for number, (error, cost, outcome) in enumerate(points):
        ended_trial(
            store,
            {
                "trial_id": f"t{number:04d}",
                "number": number,
                "outcome": outcome,
                "objective": error,
                "seconds_per_epoch": cost,
            },
        )
    return load(store.path)


def test_the_front_is_what_no_other_dominates(tmp_path):
    draw = random.Random(0)
    points = [(draw.random(), draw.random(), "completed") for _ in range(60)]
    found = front(run_with(tmp_path, points))
    expected = {
        f"t{n:04d}"
        for n, (e, c, _) in enumerate(points)
        if not any(e2 <= e and c2 <= c and (e2, c2) != (e, c) for e2, c2, _ in points)
    }
    assert set(found["trial_id"]) == expected
    assert found["objective"].is_monotonic_decreasing
    assert found["seconds_per_epoch"].is_monotonic_increasing


def test_trials_of_lower_fidelity_are_not_on_it(tmp_path):
    points = [(0.5, 2.0, "completed"), (0.1, 1.0, "stopped"), (0.2, 1.0, "diverged")]
    run = run_with(tmp_path, points)
    assert list(front(run)["trial_id"]) == ["t0000"]
    assert "t0000" in text(run)


def test_the_figure_has_the_front_and_whoever_is_beaten(tmp_path):
    points = [(0.5, 2.0, "completed"), (0.4, 1.0, "completed"), (0.3, 4.0, "completed")]
    (axes,) = draw_front(run_with(tmp_path, points)).axes
    assert {word.get_text() for word in axes.texts} == {"t0001", "t0002"}
    beaten, best = (dots.get_offsets().tolist() for dots in axes.collections)
    assert beaten == [[2.0, 0.5]]
    assert best == [[1.0, 0.4], [4.0, 0.3]]


def test_an_empty_front_says_so(tmp_path):
    run = run_with(tmp_path, [])
    assert text(run) == "No Pareto front: no trial completed."
    assert draw_front(run) == "No trial completed, so there is no Pareto front yet."
