"""A driver shows its token where there is one, and asks for none where a cluster has none."""

import os
from pathlib import Path

import pytest

from search.plan.environment import DRIVER_ENV, set_ray_environment


@pytest.fixture(autouse=True)
def fresh(monkeypatch, tmp_path):
    """A user who has set nothing and has no token."""
    for name in (*DRIVER_ENV, "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.setenv(name, "")  # so that what a test sets does not stay
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def token_in_home(home, monkeypatch):
    home.joinpath(".ray").mkdir()
    home.joinpath(".ray", "auth_token").write_text("x")


def token_in_a_file(home, monkeypatch):
    home.joinpath("token").write_text("x")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(home / "token"))


def token_in_a_variable(home, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_TOKEN", "x")


def test_a_ray_of_our_own_has_a_token():
    set_ray_environment()
    assert os.environ["RAY_AUTH_MODE"] == "token"


def test_whoever_has_no_token_works_on_a_cluster_that_asks_for_none():
    set_ray_environment("127.0.0.1:6379")
    assert "RAY_AUTH_MODE" not in os.environ


@pytest.mark.parametrize("have", [token_in_home, token_in_a_file, token_in_a_variable])
def test_whoever_has_a_token_shows_it(have, fresh, monkeypatch):
    have(fresh, monkeypatch)
    set_ray_environment("127.0.0.1:6379")
    assert os.environ["RAY_AUTH_MODE"] == "token"


@pytest.mark.parametrize("home", ["/dev/null", "/proc/none"])
def test_a_home_that_takes_no_files_leaves_the_token_in_a_private_place(home, monkeypatch):
    monkeypatch.setenv("HOME", home)
    set_ray_environment()
    file = Path(os.environ["RAY_AUTH_TOKEN_PATH"])
    assert len(file.read_text()) >= 32
    assert file.parent.stat().st_mode & 0o777 == 0o700
    set_ray_environment()  # as every command of a process does
    assert os.environ["RAY_AUTH_TOKEN_PATH"] == str(file)


def test_a_home_that_takes_files_is_left_to_ray(fresh):
    set_ray_environment()
    assert "RAY_AUTH_TOKEN_PATH" not in os.environ
    assert not fresh.joinpath(".ray").exists()


def test_what_the_user_has_set_stays(monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    set_ray_environment()
    assert os.environ["RAY_AUTH_MODE"] == "disabled"
