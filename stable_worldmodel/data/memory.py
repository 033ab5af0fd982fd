"""How much memory may still be taken."""

from __future__ import annotations

from pathlib import Path

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")
_UNKNOWN = 4 << 30  # assumed where the system does not tell


def available_memory() -> int:
    """Bytes that can be allocated without swapping: free memory of the machine, or what its container leaves."""
    limits = []
    if _MEMINFO.exists():
        fields = dict(line.split(":", 1) for line in _MEMINFO.read_text().splitlines())
        if "MemAvailable" in fields:
            limits.append(int(fields["MemAvailable"].split()[0]) * 1024)
    limit_file, used_file = _CGROUP / "memory.max", _CGROUP / "memory.current"
    if limit_file.exists() and used_file.exists() and (limit := limit_file.read_text().strip()) != "max":
        limits.append(max(int(limit) - int(used_file.read_text()), 0))
    return min(limits, default=_UNKNOWN)
