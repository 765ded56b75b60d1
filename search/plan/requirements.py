"""Checks that take seconds, before hours are spent; each refusal has rule, value and remedy.

Those that need a cluster's answers get them as plain data.
"""

import importlib.util
import socket
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from .errors import Refused

MUST_AGREE = ("python", "ray", "torch", "numpy")
"""Versions that driver and workers must share; the project's own code is sent along."""
LOG_LIBRARIES = {
    "tensorboard": ("tensorboardX", "tensorboardX"),
    "mlflow": ("mlflow", "mlflow-skinny"),
    "wandb": ("wandb", "wandb"),
}
"""Module of each logger, and the package to install."""


def check_writable(out: Path, remedy: str = "Choose another with --out.") -> None:
    """Raise Refused, with the nearest existing folder above, if writing to `out` fails."""
    existing = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    try:
        with tempfile.TemporaryFile(dir=existing) as probe:
            probe.write(b"0" * 4096)
    except OSError as error:
        raise Refused(
            f"--out must be a folder that can be written to, but {existing} is not "
            f"({error.strerror}). {remedy}"
        ) from None


def version_mismatch(
    own: Mapping[str, str | None], theirs: Mapping[str, Mapping[str, str | None]]
) -> str:
    """Return why workers are refused, or "": their versions (by host, by package) differ from the
    driver's `own`, so rows would depend on where a trial ran."""
    differing = [
        f"{name} is {own[name]} here and {found.get(name)} on {host}"
        for host, found in theirs.items()
        for name in MUST_AGREE
        if _release(own[name]) != _release(found.get(name))
    ]
    if not differing:
        return ""
    return (
        f"workers must have the driver's versions, but {'; '.join(differing)}. Use one image "
        "on all machines, or install the same version on them."
    )


def check_loggers(names: Iterable[str]) -> None:
    """Raise Refused if the library of a logger is not installed."""
    for name in names:
        module, package = LOG_LIBRARIES[name]
        if importlib.util.find_spec(module) is None:
            raise Refused(
                f"--log {name} needs the package {package}, which is not installed. Install it "
                f"with `pip install {package}`, or leave it out (with --resume: --log none)."
            )


def _release(version: str | None) -> str | None:
    return None if version is None else version.partition("+")[0]  # +cpu and +cu128 agree


def check_address(address: str | None, timeout: float = 5.0) -> None:
    """Raise Refused for an address of Ray's client, and for `host:port` where nothing listens, in
    seconds instead of Ray's minutes."""
    if address is None:
        return
    if address.startswith("ray://"):
        raise Refused(
            f"the driver of a search runs on a machine of the cluster, but {address!r} is one for "
            "Ray's client. Submit the search as a job, or run it there with `--address auto`."
        )
    host, _, port = address.rpartition(":")
    if not port.isdigit():
        return  # Ray resolves `auto` and names
    try:
        socket.create_connection((host or "127.0.0.1", int(port)), timeout).close()
    except OSError as error:
        raise Refused(
            f"--address must name a running Ray cluster, but nothing listens at {address!r} "
            f"({error}). Start one with `ray start --head`, or leave --address out."
        ) from error
