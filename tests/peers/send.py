"""Sends every .eml file of a directory, each twice at once over connections
of their own, and prints what the server answered.

    send.py HOST PORT DIRECTORY
"""

import pathlib
import smtplib
import sys
from concurrent.futures import ThreadPoolExecutor


def send(path: pathlib.Path) -> str:
    with smtplib.SMTP(sys.argv[1], int(sys.argv[2]), timeout=30) as server:
        server.ehlo("client.test")
        server.mail("app@a.test", ["BODY=8BITMIME"])
        server.rcpt("ann@b.test")
        code, text = server.data(path.read_bytes())
        return f"{path.stem} {code} {text.decode()}"


with ThreadPoolExecutor(8) as pool:
    paths = sorted(pathlib.Path(sys.argv[3]).glob("*.eml"))
    for answer in pool.map(send, [path for path in paths for _ in range(2)]):
        print(answer)
