"""Provenance of a run: command, code, versions and machine, as plain JSON-safe data.

Nothing here fails: without git, outside a checkout or without a GPU the entry says so instead of
being guessed. Versions are read from the installed distributions, so that no heavy
package is imported.
"""

import hashlib
import importlib.metadata
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

PACKAGES = ("ris-eigengap-search", "torch", "ray", "optuna", "numpy", "scipy", "pandas", "pyarrow")
DIFF_LIMIT = 200_000
"""Most characters of a dirty checkout's diff that are kept; its hash is of all of it."""

_PATIENCE_S = 10.0


def provenance(
    *,
    seeds: Mapping[str, int] | None = None,
    argv: Sequence[str] | None = None,
    root: Path | None = None,
) -> dict[str, Any]:
    """Collect what identifies the origin of a run.

    Args:
        seeds: by name, where the plan beside it does not have them already.
        argv: the command; by default this process's own.
        root: folder of the code whose checkout is described; by default this project's.
    """
    return {
        "argv": list(sys.orig_argv if argv is None else argv),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "seeds": dict(seeds or {}),
        "code": checkout(root or Path(__file__).resolve().parents[1]),
        "versions": versions(),
        "machine": machine(),
    }


def checkout(root: Path) -> dict[str, Any]:
    """Return the commit of the checkout at `root`, and its changes; `git` says why if unknown."""
    sha = _ask("git", "-C", str(root), "rev-parse", "HEAD")
    # an installed package may lie inside another checkout, such as a home folder under git
    top = _ask("git", "-C", str(root), "rev-parse", "--show-toplevel")
    if sha is None or top is None or Path(top.strip()).resolve() != root.resolve():
        return {"git": "no checkout", "sha": None, "dirty": None}
    diff = _ask("git", "-C", str(root), "diff", "HEAD")
    new = _ask("git", "-C", str(root), "ls-files", "--others", "--exclude-standard")
    if diff is None or new is None:
        return {"git": "did not answer", "sha": sha.strip(), "dirty": None}
    found: dict[str, Any] = {"git": "read", "sha": sha.strip(), "dirty": bool(diff or new)}
    if found["dirty"]:
        found |= {
            "diff_sha256": hashlib.sha256(diff.encode(errors="surrogateescape")).hexdigest(),
            "diff": diff[:DIFF_LIMIT].encode(errors="replace").decode(),
            "diff_cut": len(diff) > DIFF_LIMIT,
            "untracked": new.splitlines()[:100],
        }
    return found


def versions() -> dict[str, str | None]:
    """Return the versions of Python and of the packages that results may depend on."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def machine() -> dict[str, Any]:
    """Return host, system, usable cores and GPUs; trials record their own host and device."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "host": platform.node(),
        "platform": platform.platform(),
        "cpus": usable,
        "gpus": gpus(),
    }


def gpus() -> list[str]:
    """Return names and drivers of the GPUs that nvidia-smi lists; empty without it."""
    listed = _ask("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader")
    return [line.strip() for line in (listed or "").splitlines() if line.strip()]


def _ask(*command: str) -> str | None:
    """Return what a command prints, or None if it is missing, fails or takes too long."""
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            timeout=_PATIENCE_S,
            check=True,
            stdin=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
            errors="surrogateescape",
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout
