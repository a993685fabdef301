"""Gets what is to be measured: Debian packages, mailonce, and what must not be
installed beside them."""

import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

from peers import CLEAN_PATH, Fault

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / os.environ.get("CARGO_TARGET_DIR", "target")
KEPT = TARGET / "bench"
HARAKA = "Haraka@3.3.4"
EXIM = KEPT / "exim/usr/sbin/exim4"

# What must be there, by peer, and the Debian package that has it.
NEEDS = {
    "postfix": ("postfix", "postfix"),
    "haproxy": ("haproxy", "haproxy"),
    "nginx": ("/usr/lib/nginx/modules/ngx_mail_module.so", "libnginx-mod-mail"),
}
SINK = ("smtp-sink", "postfix")


def raise_limits() -> None:
    """Each session takes two descriptors in the middle."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65536
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def mailonce() -> Path:
    """mailonce, built for release."""
    return built(ROOT, TARGET) / "mailonce"


def load() -> Path:
    """The client, sink and link in bench/load."""
    return built(ROOT / "bench/load", KEPT / "load") / "load"


def built(package: Path, target: Path) -> Path:
    command = ["cargo", "build", "--release", "--locked", "--target-dir", str(target)]
    if subprocess.run(command, cwd=package, check=False).returncode != 0:
        raise Fault(f"{package} could not be built")
    return target / "release"


def which(name: str) -> str:
    return shutil.which(name, path=CLEAN_PATH) or ""


def present(name: str) -> bool:
    return Path(name).exists() if name.startswith("/") else bool(which(name))


def packages(peers: list[str]) -> None:
    """Debian packages that are missing, without starting their services."""
    needs = [SINK, *(NEEDS[name] for name in peers if name in NEEDS)]
    lacking = sorted({package for what, package in needs if not present(what)})
    if not lacking:
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise Fault(f"please install {' and '.join(lacking)} (Debian packages)")
    # Where this says 101, Debian's packages start no service.
    policy = Path("/usr/sbin/policy-rc.d")
    ours = not policy.exists()
    if ours:
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
    try:
        if "postfix" in lacking:
            answer = "postfix postfix/main_mailer_type select Local only\n"
            subprocess.run(["debconf-set-selections"], input=answer, text=True, check=False)
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "update", "-q"], env=environment, check=False)
        command = ["apt-get", "install", "-q", "-y", "--no-install-recommends", *lacking]
        if subprocess.run(command, env=environment, check=False).returncode != 0:
            raise Fault(f"{' and '.join(lacking)} could not be installed")
    finally:
        if ours:
            policy.unlink()


def absent(peers: list[str]) -> dict[str, str]:
    """Who can't take part, and why."""
    found = {}
    for name, get in (("exim", exim), ("haraka", haraka), ("aiosmtpd", aiosmtpd)):
        if name in peers and (why := get()):
            found[name] = why
    return found


def exim() -> str:
    """Exim, unpacked: as a package it would replace Postfix."""
    if EXIM.exists():
        return ""
    KEPT.mkdir(parents=True, exist_ok=True)
    if not quietly(["apt-get", "download", "exim4-daemon-light"], KEPT):
        return "its Debian package could not be downloaded"
    archive = next(KEPT.glob("exim4-daemon-light_*.deb"))
    if not quietly(["dpkg", "-x", str(archive), str(KEPT / "exim")], KEPT):
        return "its Debian package could not be unpacked"
    return ""


def haraka() -> str:
    """Haraka from npm, in a directory of its own."""
    if haraka_script().exists():
        return ""
    (KEPT / "haraka").mkdir(parents=True, exist_ok=True)
    command = ["npm", "install", "--no-audit", "--no-fund", "--omit=optional", "--prefix", ".", HARAKA]
    return "" if quietly(command, KEPT / "haraka") else "npm is not there or could not install it"


def haraka_script() -> Path:
    return KEPT / "haraka/node_modules/Haraka/bin/haraka"


def aiosmtpd() -> str:
    return "" if python_with("aiosmtpd") else "python3-aiosmtpd is not installed"


def python_with(module: str) -> str:
    """A Python that has a module: this one, or the system's."""
    for python in (sys.executable, "/usr/bin/python3"):
        if quietly([python, "-c", f"import {module}"], ROOT):
            return python
    return ""


def quietly(command: list[str], where: Path) -> bool:
    try:
        return subprocess.run(command, cwd=where, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def versions(options, names: list[str]) -> list[tuple[str, str]]:
    """What took part, in which version."""
    from measure import output

    commands = {
        "mailonce": [options.binary, "--version"],
        "haproxy": [which("haproxy"), "-v"],
        "nginx": [which("nginx"), "-v"],
        "postfix": [which("postconf"), "-d", "-h", "mail_version"],
        "exim": [EXIM, "-bV"],
        "haraka": ["node", "-p", f"require('{haraka_script().parent.parent}/package.json').version"],
        "aiosmtpd": [python_with("aiosmtpd"), "-c", "import aiosmtpd; print(aiosmtpd.__version__)"],
    }
    said = {name: output(*command).split("\n", 1)[0] for name, command in commands.items() if name in names}
    return [(name, text.partition(" - ")[0]) for name, text in said.items()]
