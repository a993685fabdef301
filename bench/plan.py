"""Which loads there are, and who takes part in which."""

from dataclasses import dataclass

KIB, MIB = 1024, 1024 * 1024
SIZES = {"5K": 5 * KIB, "100K": 100 * KIB, "1M": MIB, "10M": 10 * MIB}
SESSIONS = [1, 10, 50, 200]

CORE = ["direct", "haproxy", "postfix", "mailonce"]
PEERS = ["direct", "haproxy", "nginx", "postfix", "exim", "haraka", "aiosmtpd", "mailonce"]
# Other forms of mailonce, only when named.
FORMS = ["rules", "content", "before"]
OURS = ["mailonce", *FORMS]
# These take minutes for what takes the others seconds.
SLOW = {"exim", "haraka", "aiosmtpd"}
TLS = {"haproxy", "nginx", "postfix", "mailonce"}


@dataclass(frozen=True)
class Cell:
    """How the load looks."""

    size: str
    sessions: int
    many: bool
    tls: bool = False

    @property
    def octets(self) -> int:
        return SIZES[self.size]

    @property
    def load(self) -> str:
        return f"s{self.sessions} {'many' if self.many else '1/conn'}"

    def __str__(self) -> str:
        return f"{self.size} {self.load}{' TLS' if self.tls else ''}"

    @property
    def decides(self) -> bool:
        """Whether a target hangs on it: it gets more time."""
        return self.sessions >= 10 and self.size == "5K"


def cells(sizes: list[str], sessions: list[int], connections: list[bool], tls: bool) -> list[Cell]:
    """All that make sense, small ones first."""
    grid = [Cell(size, count, many) for size in sizes for many in connections for count in sessions]
    grid = [cell for cell in grid if sensible(cell)]
    if tls:
        grid += [Cell("5K", 10, many, tls=True) for many in connections]
    return grid


def sensible(cell: Cell) -> bool:
    """A run with so many sessions of 10 MiB takes a minute, in which connections
    are nothing: how many messages have one makes no difference."""
    return not (cell.size == "10M" and cell.sessions >= 50 and cell.many)


def takes_part(name: str, cell: Cell) -> bool:
    """Whether this peer is measured in this cell."""
    if cell.tls:
        return name in TLS
    if name in SLOW:
        return cell.octets < MIB or (cell.sessions <= 10 and not (cell.size == "10M" and cell.many))
    return True


def rounds(cell: Cell, wanted: int) -> int:
    """Turns in this cell: the largest loads take a minute for a single one."""
    if cell.decides:
        return wanted + 2
    return max(1, wanted - 2) if cell.size == "10M" and cell.sessions >= 50 else wanted


def least(name: str, cell: Cell) -> int:
    """Messages of a run. A large message that is taken in whole gives the sink
    nothing to do until then, and the client nothing while the last ones go out:
    with several a session that is no large part of a run."""
    several = cell.octets >= MIB and cell.sessions >= 10 and name not in SLOW
    return cell.sessions * (8 if several else 1)


def seconds(cell: Cell, wanted: float) -> float:
    """How long a run is to take, about."""
    return 2 * wanted if cell.decides else wanted
