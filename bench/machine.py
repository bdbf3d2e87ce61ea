"""Which machine, which kernel, which versions: a number without them says nothing."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import ssl
import subprocess
import time

from bench.processes import cpu_seconds


def describe() -> dict[str, object]:
    """What the results file keeps about where it was made."""
    return {
        "processor": _field("/proc/cpuinfo", "model name") or platform.processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30), 1),
        "hypervisor": _hypervisor(),
        "kernel": platform.release().split("-")[0],
        "system": _field("/etc/os-release", "PRETTY_NAME", "=").strip('"'),
        "congestion_control": _text("/proc/sys/net/ipv4/tcp_congestion_control"),
        "python": platform.python_version(),
        "openssl": ssl.OPENSSL_VERSION,
        "commit": _commit(),
        "load_before": round(os.getloadavg()[0], 2),
    }


class Neighbours:
    """How much of the machine's processors went to others while we measured."""

    def __init__(self) -> None:
        self._begun = time.monotonic()
        self._busy = _busy_seconds()
        self._own = cpu_seconds(os.getpid())

    def percent(self) -> float:
        """Since the beginning, of all cores; interrupts and the kernel's own threads count as others'."""
        others = (_busy_seconds() - self._busy) - (cpu_seconds(os.getpid()) - self._own)
        whole = (time.monotonic() - self._begun) * (os.cpu_count() or 1)
        return round(100 * max(others, 0.0) / max(whole, 0.001), 1)


def version_of(argv: list[str]) -> str:
    """The first line of what a program says about its version; empty when it says nothing."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=10, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return (done.stdout or done.stderr).strip().split("\n")[0][:80]


def package_version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _busy_seconds() -> float:
    """user, nice, system, irq, softirq and steal of all processors (proc_stat(5))."""
    fields = _text("/proc/stat").split("\n")[0].split()
    return sum(int(fields[number]) for number in (1, 2, 3, 6, 7, 8)) / os.sysconf("SC_CLK_TCK")


def _commit() -> str:
    here = os.path.dirname(os.path.abspath(__file__))
    done = subprocess.run(["git", "-C", here, "describe", "--always", "--dirty"], capture_output=True, text=True)
    return done.stdout.strip()


def _hypervisor() -> str:
    return "yes" if "hypervisor" in _field("/proc/cpuinfo", "flags").split() else "no"


def _text(path: str) -> str:
    try:
        with open(path) as file:
            return file.read().strip()
    except OSError:
        return ""


def _field(path: str, name: str, separator: str = ":") -> str:
    for line in _text(path).split("\n"):
        key, found, value = line.partition(separator)
        if found and key.strip() == name:
            return value.strip()
    return ""
