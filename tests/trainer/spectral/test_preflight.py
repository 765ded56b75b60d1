"""A sound machine passes, a broken eigensolver is caught, and an answer is measured once."""

import json
import time

import pytest
import torch

from tests import broken_eigh
from trainer.config import BACKEND_NAMES, ConfigError, TrainConfig
from trainer.spectral import preflight
from trainer.spectral.backend_check import ProblemSize
from trainer.spectral.preflight import check_spectral, problem_size

SMALL = [ProblemSize(12, 5, 8), ProblemSize(12, None, 8)]


def test_a_sound_machine_passes_in_every_backend(tmp_path):
    for dtype, roundoff in (("complex64", 6e-8), ("complex128", 1.2e-16)):
        check = check_spectral(BACKEND_NAMES, sizes=SMALL, dtype=dtype, cache=tmp_path)
        assert check.ok, check.reason
        assert check.dtype == dtype
        assert sorted(row.backend for row in check.backends) == sorted([*BACKEND_NAMES, "auto"])
        assert check.sizes == tuple(SMALL)
        for row in check.backends:
            assert row.residual < row.tolerance <= 10 * 12 * roundoff
            assert row.orthonormality < row.tolerance
            assert row.gap_ms > 0
            assert row.subspace_ms > 0
            assert row.nonfinite_share == 0 or row.backend in ("eigh", "svd")


def test_small_presets_are_checked_in_three_seconds(tmp_path):
    """Of its own: what else the machine does is not on its clock."""
    start = time.process_time()
    size = problem_size(TrainConfig())
    assert size == ProblemSize(36, None, 64)
    check_spectral(BACKEND_NAMES[2:], sizes=[size], cache=tmp_path)
    check_spectral(BACKEND_NAMES, sizes=[ProblemSize(36, 24, 64)], cache=tmp_path)
    assert time.process_time() - start < 3


def test_what_auto_stands_for_and_why():
    assert [s.resolves_to for s in SMALL] == ["gram", "exact"]
    assert SMALL[0].why == "F has 5 columns < 12 rows"
    assert SMALL[1].why == "R is dense, 12 x 12"
    assert ProblemSize(12, 12, 8).resolves_to == "exact"
    params = {"network.kind": "factor", "network.rank": 8, "covariance.blend_bound": 0.3}
    config = TrainConfig.from_params(params)
    assert problem_size(config).rank == config.factor_columns == 8 + 16


@pytest.mark.parametrize("backend", ["exact", "gram"])
def test_a_silently_wrong_eigensolver_is_caught_and_not_cached(monkeypatch, tmp_path, backend):
    monkeypatch.setattr("trainer.spectral.backends.descending_eigh", broken_eigh.eigh)
    check = check_spectral([backend], sizes=SMALL, cache=tmp_path)
    assert not check.ok
    assert f"{backend} at 12 elements: " in check.reason
    assert "exceeds" in check.reason
    assert "use another backend or torch version, or the CPU" in check.reason
    assert any("FAILED" in line for line in check.lines())
    assert list(tmp_path.iterdir()) == []


def test_an_eigensolver_that_returns_nan_is_caught(monkeypatch, tmp_path):
    monkeypatch.setattr(
        "trainer.spectral.backends.descending_eigh",
        lambda m: (torch.linalg.eigvalsh(m).flip(-1), torch.full_like(m, torch.nan)),
    )
    assert not check_spectral(["exact"], sizes=SMALL, cache=tmp_path).ok


def test_an_answer_is_measured_once_per_question(monkeypatch, tmp_path):
    first = check_spectral(["exact"], sizes=SMALL, cache=tmp_path)
    assert not first.cached
    monkeypatch.setattr(preflight, "check_backend", lambda *_: pytest.fail("measured again"))
    again = check_spectral(["exact", "exact"], sizes=SMALL, cache=tmp_path)
    assert again.cached
    assert again.backends == first.backends
    for other in (
        {"dtype": "complex128"},
        {"sizes": SMALL[:1]},
        {"backends": ["auto"]},
    ):
        with pytest.raises(pytest.fail.Exception):
            check_spectral(**{"backends": ["exact"], "sizes": SMALL, "cache": tmp_path} | other)


def test_a_damaged_cache_costs_time_only(tmp_path):
    check_spectral(["exact"], sizes=SMALL, cache=tmp_path)
    (file,) = tmp_path.iterdir()
    for damage in ("", "{}", json.dumps({"backends": [{"size": 3}]})):
        file.write_text(damage)
        assert not check_spectral(["exact"], sizes=SMALL, cache=tmp_path).cached
    (tmp_path / "a file").write_text("")
    assert check_spectral(["exact"], sizes=SMALL, cache=tmp_path / "a file" / "x").ok


def test_the_cache_lies_where_the_user_says(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    check_spectral(["exact"], sizes=SMALL[:1])
    assert len(list((tmp_path / "ris-eigengap-search").glob("spectral-*.json"))) == 1


def test_bad_questions_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="Did you mean `exact`"):
        check_spectral(["exakt"], sizes=SMALL, cache=tmp_path)
    with pytest.raises(ConfigError, match="dtype"):
        check_spectral(["exact"], sizes=SMALL, dtype="float16", cache=tmp_path)
    with pytest.raises(ConfigError, match=r"fewer columns than rows.*Use exact"):
        check_spectral(["gram"], sizes=SMALL[1:], cache=tmp_path)


def test_a_person_can_read_it(tmp_path):
    lines = check_spectral(["auto", "eigh"], sizes=SMALL, cache=tmp_path).lines()
    assert lines[0].startswith(f"torch {torch.__version__} on ")
    assert "  auto is gram: F has 5 columns < 12 rows" in lines
    assert "  auto is exact: R is dense, 12 x 12" in lines
