"""A server of aiosmtpd, keeping each message in a file of a directory.

    aiosmtpd_server.py DIRECTORY    (prints its version and its address)
"""

import asyncio
import itertools
import sys
from pathlib import Path

import aiosmtpd
from aiosmtpd.smtp import SMTP

directory = Path(sys.argv[1])
numbers = itertools.count(1)


class Keep:
    async def handle_DATA(self, server, session, envelope) -> str:
        number = next(numbers)
        unfinished = directory / "unfinished"
        unfinished.write_bytes(envelope.original_content)
        unfinished.rename(directory / f"{number}.eml")
        return f"250 2.0.0 OK: kept as aiosmtpd-{number}"


async def serve() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(Keep(), hostname="upstream.test", enable_SMTPUTF8=True), "127.0.0.1")
    host, port = server.sockets[0].getsockname()
    print(f"{aiosmtpd.__version__} {host}:{port}", flush=True)
    await server.serve_forever()


asyncio.run(serve())
