# SPDX-License-Identifier: GPL-2.0-or-later
"""What a process and all its descendants have used, as Linux tells in /proc."""
import os
import resource
from pathlib import Path

_TICK = os.sysconf('SC_CLK_TCK')


def family(process: int) -> list:
    """The ids of the process and of all its descendants that live now."""
    children: dict = {}
    for entry in Path('/proc').iterdir():
        if entry.name.isdigit():
            fields = _stat(int(entry.name))
            if fields:
                children.setdefault(int(fields[1]), []).append(int(entry.name))
    found = [process]
    for parent in found:
        found += children.get(parent, ())
    return found


def processor_seconds(process: int) -> float:
    """Processor time of the whole family, of those who have ended too."""
    ticks = 0
    for member in family(process):
        fields = _stat(member)
        if fields:  # user, system, and both of the children that were waited for
            ticks += sum(map(int, fields[11:15]))
    return ticks / _TICK


def reset_peak(process: int) -> None:
    """Let peak_memory() count from now on; without effect where that is not allowed."""
    for member in family(process):
        try:
            Path('/proc/%d/clear_refs' % member).write_text('5')
        except OSError:
            pass


def peak_memory(process: int) -> int:
    """The highest resident size of each member of the family in octets, added up."""
    return sum(_status(member, 'VmHWM') for member in family(process))


def memory(process: int) -> int:
    """The resident size of the family in octets, pages that are shared counted each time."""
    return sum(_status(member, 'VmRSS') for member in family(process))


def raise_descriptor_limit() -> int:
    """Allow this process as many descriptors as it may have; how many that is."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def _stat(process: int) -> list:
    """The fields of /proc/PID/stat behind the name; [] if the process is gone."""
    try:
        text = Path('/proc/%d/stat' % process).read_text(encoding='ascii', errors='replace')
    except OSError:
        return []
    return text.rpartition(')')[2].split()


def _status(process: int, name: str) -> int:
    try:
        text = Path('/proc/%d/status' % process).read_text(encoding='utf-8', errors='replace')
    except OSError:
        return 0
    for line in text.splitlines():
        if line.startswith(name + ':'):
            return int(line.split()[1]) * 1024
    return 0
