"""Provenance names the code exactly, or says that it cannot; it never fails."""

import json
import os
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest

from trainer import provenance


@pytest.fixture
def repository(tmp_path):
    def git(*command):
        author = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org"]
        done = subprocess.run(
            ["git", *author, *command], cwd=tmp_path, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    git("init", "-q")
    (tmp_path / "a.py").write_text("x = 1\n")
    git("add", "a.py")
    git("commit", "-q", "-m", "Begin")
    return tmp_path, git


def test_what_is_collected_survives_json():
    found = provenance.provenance(seeds={"search": 3}, argv=["python", "-m", "search.run"])
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["argv"] == ["python", "-m", "search.run"]
    assert found["seeds"] == {"search": 3}
    assert datetime.fromisoformat(found["time"]).utcoffset().total_seconds() == 0
    assert found["machine"]["cpus"] >= 1


def test_a_clean_checkout_is_its_commit(repository):
    path, git = repository
    found = provenance.checkout(path)
    assert found == {"git": "read", "sha": git("rev-parse", "HEAD"), "dirty": False}


def test_a_dirty_checkout_is_its_commit_and_its_difference(repository, monkeypatch):
    path, _ = repository
    (path / "a.py").write_text("x = 2  # \u03bb\n")
    (path / "new.py").write_text("")
    one = provenance.checkout(path)
    assert one["dirty"] is True
    assert "+x = 2" in one["diff"]
    assert one["diff_cut"] is False
    assert one["untracked"] == ["new.py"]
    (path / "a.py").write_text("x = 3  # \u03bb\n")
    assert provenance.checkout(path)["diff_sha256"] != one["diff_sha256"]
    monkeypatch.setattr(provenance, "DIFF_LIMIT", 10)
    cut = provenance.checkout(path)
    assert len(cut["diff"]) == 10
    assert cut["diff_cut"] is True


def test_a_diff_that_is_no_text_still_fits_into_json(repository):
    path, _ = repository
    (path / "a.py").write_bytes(b"x = '\xff\xfe'\n")
    json.dumps(provenance.checkout(path), ensure_ascii=False).encode()


def test_outside_a_checkout_and_inside_a_foreign_one_the_commit_is_unknown(repository, tmp_path):
    path, _ = repository
    inside = path / "site-packages"
    inside.mkdir()
    assert provenance.checkout(inside)["sha"] is None
    assert provenance.checkout(tmp_path / "nowhere")["sha"] is None


def test_without_git_and_without_a_gpu(monkeypatch):
    monkeypatch.setenv("PATH", "")
    found = provenance.provenance()
    assert found["code"]["sha"] is None
    assert found["machine"]["gpus"] == []


def test_gpus_are_what_nvidia_smi_says(tmp_path, monkeypatch):
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'NVIDIA H100, 550.1'\necho 'NVIDIA H100, 550.1'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert provenance.gpus() == ["NVIDIA H100, 550.1"] * 2
    tool.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed' ; exit 9\n")
    assert provenance.gpus() == []


def test_versions_are_those_installed_and_nothing_heavy_is_imported():
    import numpy

    assert provenance.versions()["numpy"] == numpy.__version__
    code = (
        "import sys; from trainer import provenance; provenance.provenance();"
        "print(sorted({'torch', 'ray', 'optuna', 'pandas', 'numpy'} & set(sys.modules)))"
    )
    root = Path(provenance.__file__).parents[1]
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
