"""What is read from the kernel and the disk: CPU, memory, ports, pace."""

import os
import platform
import re
import socket
import subprocess
import time
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
MEMORY_ONLY = {"tmpfs", "ramfs", "devtmpfs"}


def free_ports(count):
    """Loopback ports that nobody listens on, all different."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def answers(port, seconds=15.0):
    """Waits until something on the port greets; says whether it did."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            with socket.create_connection(("127.0.0.1", port), 1) as one:
                one.settimeout(2)
                if one.recv(3) == b"220":
                    one.sendall(b"QUIT\r\n")
                    while one.recv(512):
                        pass
                    return True
        except OSError:
            pass
        time.sleep(0.05)
    return False


def tree(root):
    """A process and everything below it."""
    parents = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (stat := _stat(entry)):
            parents.setdefault(int(stat[1]), []).append(int(entry))
    found, todo = [], [root]
    while todo:
        one = todo.pop()
        found.append(one)
        todo.extend(parents.get(one, ()))
    return found


def _stat(process):
    """Fields of /proc/PID/stat from the third (state) on."""
    try:
        text = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return None
    return text[text.rindex(")") + 2 :].split()


def alive(process):
    """Whether a process runs; one that has ended may still be listed."""
    stat = _stat(process)
    return bool(stat) and stat[0] != "Z"


def cpu_seconds(root):
    """User and system time of a process tree, children that have ended
    included (their parent has it)."""
    return sum(_seconds(process) for process in tree(root))


def _seconds(process):
    """Of a process and its children that have ended. Where many processes do
    a little each, ticks hide it: the scheduler knows it to the nanosecond, but
    of a single thread only."""
    stat = _stat(process)
    if not stat:
        return 0.0
    own, children = sum(map(int, stat[11:13])) / TICKS, sum(map(int, stat[13:15])) / TICKS
    if stat[17] == "1":
        try:
            own = int(Path(f"/proc/{process}/schedstat").read_text().split()[0]) / 1e9
        except (OSError, IndexError):
            pass
    return own + children


def memory_mib(root):
    """Peak resident set and proportional set of a process tree."""
    peak = proportional = 0
    for process in tree(root):
        peak += _kib(f"/proc/{process}/status", "VmHWM:")
        proportional += _kib(f"/proc/{process}/smaps_rollup", "Pss:")
    return peak / 1024, proportional / 1024


def forget_peaks(root):
    """From now on the peaks of a process tree are counted anew."""
    for process in tree(root):
        try:
            Path(f"/proc/{process}/clear_refs").write_text("5")
        except OSError:
            pass


def resident_mib(root):
    """Resident set of a process tree, now."""
    return sum(_kib(f"/proc/{process}/status", "VmRSS:") for process in tree(root)) / 1024


def _kib(file, name):
    try:
        for line in Path(file).read_text().splitlines():
            if line.startswith(name):
                return int(line.split()[1])
    except OSError:
        pass
    return 0


def machine_times():
    """Time all cores together spent idle, and in all."""
    fields = list(map(int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]))
    return fields[3] + fields[4], sum(fields)


def file_system(directory):
    """Type and device of the file system that a directory is on."""
    device = os.stat(directory).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, right = line.split(" - ", 1)
        if left.split()[2] == wanted:
            kind, source = right.split()[:2]
            return kind, source
    return "unknown", "?"


def disk_pace(directory, seconds=2.0):
    """How often 4 KiB can be written over and made durable, a second; and the
    median and 99th percentile of one, in milliseconds."""
    path = os.path.join(directory, "pace")
    block = b"\x55" * 4096
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        os.pwrite(file, block, 0)
        os.fsync(file)
        took = []
        end = time.perf_counter() + seconds
        while (begun := time.perf_counter()) < end:
            os.pwrite(file, block, 0)
            os.fdatasync(file)
            took.append(time.perf_counter() - begun)
    finally:
        os.close(file)
        os.unlink(path)
    took.sort()
    return len(took) / seconds, took[len(took) // 2] * 1000, took[len(took) * 99 // 100] * 1000


def cpu_name():
    """What the kernel calls the processor."""
    found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found.group(1) if found else platform.machine()


def output(*command):
    """What a command prints, or nothing."""
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True)
        return done.stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
