"""SIGINT and SIGTERM mean the same from a command's first line on: stop, and exit with 130."""

import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

COMMAND = """
import logging, signal, sys, time
from argparse import ArgumentParser
from search.plan.interrupts import run_undisturbed
from search.plan.options import run_command

class Swallows:
    def __del__(self):
        print("in a finaliser", flush=True)
        time.sleep(60)

class Waits:
    def __set_name__(self, owner, name):
        print("a class is made", flush=True)
        time.sleep(60)

def act():
    if "class" in sys.argv:
        type("Made", (), {"named": Waits()})
    if "lock" in sys.argv:
        says = "print('has released its lock' + chr(10), end='', flush=True)"  # in one write
        took = f"signal.raise_signal(signal.SIGTERM); {says}"
        exec(compile(took, logging.__file__, "exec"))
    if "finaliser" in sys.argv:
        Swallows()
    print("at work", flush=True)
    time.sleep(60)

def clean_up():
    try:
        act()
    finally:
        print("cleaning up", flush=True)
        if "undisturbed" in sys.argv:
            run_undisturbed(lambda: time.sleep(2.5))  # longer than until it is raised again
            print("cleaned up", flush=True)

sys.exit(run_command(ArgumentParser("x"), lambda args: clean_up(), [], "again"))
"""


def command(*argv: str) -> subprocess.Popen[str]:
    root = Path(__file__).parents[3]
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, *argv],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=root,
    )


@pytest.mark.parametrize("word", [signal.SIGINT, signal.SIGTERM])
def test_either_signal_ends_a_command_with_130_and_says_so(word):
    process = command()
    assert process.stdout.readline() == "at work\n"
    process.send_signal(word)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert f"interrupted by {word.name}; nothing is lost: again" in said
    assert "Traceback" not in said


def test_a_signal_that_a_finaliser_swallowed_is_not_lost():
    process = command("finaliser")
    assert process.stdout.readline() == "in a finaliser\n"
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == "at work\n"  # Python has ignored the exception
    said = process.communicate(timeout=30)[1]
    assert process.returncode == 130
    assert "interrupted by SIGTERM" in said


def test_a_signal_while_a_class_is_made_is_an_interruption():
    """As in the middle of an import; Python 3.11 makes a RuntimeError of it."""
    process = command("class")
    assert process.stdout.readline() == "a class is made\n"
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=30)[1]
    assert process.returncode == 130
    assert "interrupted by SIGTERM" in said
    assert "Traceback" not in said


def test_a_signal_where_a_lock_is_taken_waits_until_it_is_released():
    """A clean-up in another thread waited for ever for the lock of an interrupted import."""
    process = command("lock")
    said, told = process.communicate(timeout=30)
    assert said.startswith("has released its lock\n")
    assert process.returncode == 130
    assert "interrupted by SIGTERM" in told


def test_a_clean_up_that_is_not_to_be_disturbed_is_not():
    process = command("undisturbed")
    assert process.stdout.readline() == "at work\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60)[0] == "cleaning up\ncleaned up\n"
    assert process.returncode == 130


def test_a_hand_held_on_ctrl_c_ends_a_command_with_130():
    process = command()
    assert process.stdout.readline() == "at work\n"
    while process.poll() is None:
        process.send_signal(signal.SIGINT)
        time.sleep(0.05)
    assert process.returncode == 130


RAY = """
import ray
from search.plan.interrupts import interruptible, run_undisturbed

ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
try:
    with interruptible():
        try:
            raise KeyboardInterrupt
        finally:
            print("shutting down", flush=True)
            run_undisturbed(ray.shutdown)
except KeyboardInterrupt:
    print("done", flush=True)
"""


@pytest.mark.ray
@pytest.mark.slow
def test_signals_while_ray_shuts_down_change_nothing():
    """Ray sets SIGTERM back to what kills, half a second into its shutdown."""
    root = Path(__file__).parents[3]
    process = subprocess.Popen(
        [sys.executable, "-c", RAY], stdout=subprocess.PIPE, text=True, cwd=root
    )
    assert process.stdout.readline() == "shutting down\n"
    # until it has shut down: as the process ends, Ray's C++ sets SIGTERM back once more
    while not select.select([process.stdout], [], [], 0.05)[0]:
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGINT)
    assert process.communicate()[0] == "done\n"
    assert process.returncode == 0
