"""Who else may stand in the middle: nginx, Exim, Haraka and aiosmtpd."""

from __future__ import annotations

import os
import pwd
from argparse import Namespace
from pathlib import Path

import measure
import obtain
import peers
from peers import Daemon, Fault, Sink, program

NGINX = """
load_module /usr/lib/nginx/modules/ngx_mail_module.so;
daemon off;
worker_processes 2;
worker_rlimit_nofile 8192;
pid {home}/nginx.pid;
error_log stderr error;
events {{ worker_connections 4096; }}
mail {{
    server_name nginx.example;
    auth_http 127.0.0.1:{answerer}/;
    smtp_auth none;
    xclient off;
    timeout 60s;
    server {{ listen 127.0.0.1:{port} backlog=4096; protocol smtp; }}
    server {{
        listen 127.0.0.1:{tls_port} backlog=4096 ssl;
        protocol smtp;
        ssl_certificate {certs}/server.pem;
        ssl_certificate_key {certs}/server.key;
    }}
}}
"""

# Where a session goes: always to the sink. The same nginx answers itself.
ANSWER = """
http {{
    access_log off;
    server {{
        listen 127.0.0.1:{answerer} backlog=4096;
        location / {{
            add_header Auth-Status OK;
            add_header Auth-Server 127.0.0.1;
            add_header Auth-Port {sink};
            return 204;
        }}
    }}
}}
"""


class Nginx(Daemon):
    """nginx as a mail proxy. It asks over HTTP where each session goes."""

    def __init__(self, sink: Sink, home: Path, _options: Namespace):
        port, tls_port, answerer = measure.free_ports(3)
        config = home / "nginx.conf"
        answer = ANSWER.format(answerer=answerer, sink=sink.port)
        text = NGINX.format(home=home, port=port, tls_port=tls_port, answerer=answerer, certs=home / "certs")
        config.write_text(text + answer)
        command = [program("nginx"), "-e", "stderr", "-p", home, "-c", config]
        super().__init__("nginx", command, port, home / "nginx.log")
        self.tls_port = tls_port


EXIM = """
exim_path = {program}
spool_directory = {home}/spool
log_file_path = {home}/%slog
pid_file_path = {home}/exim.pid
exim_user = {user}
exim_group = {group}
never_users =
primary_hostname = exim.example
local_interfaces = 127.0.0.1
daemon_smtp_ports = {port}
keep_environment =
smtp_accept_max = 1000
smtp_accept_queue_per_connection = 0
smtp_accept_max_per_connection = 0
smtp_connect_backlog = 1000
host_lookup =
tls_advertise_hosts =
rfc1413_query_timeout = 0s
message_size_limit = 60M
acl_smtp_rcpt = rcpt
begin acl
rcpt:
  accept control = cutthrough_delivery
begin routers
all:
  driver = manualroute
  route_list = * 127.0.0.1 byname
  self = send
  transport = smtp
begin transports
smtp:
  driver = smtp
  port = {sink}
  hosts_avoid_tls = *
  hosts_try_dane =
"""


USERS = {"passwd": "Debian-exim:x:64999:64999::/:/bin/false\n", "group": "Debian-exim:x:64999:\n"}


class Exim(Daemon):
    """Exim with cutthrough delivery: the message goes on while it comes in."""

    def __init__(self, sink: Sink, home: Path, _options: Namespace):
        if os.geteuid() != 0:
            raise Fault("Exim can only be started by root")
        (port,) = measure.free_ports(1)
        place = home / "exim"
        place.mkdir(exist_ok=True)
        (place / "spool").mkdir(exist_ok=True)
        config = place / "exim.conf"
        user = pwd.getpwnam("mail")
        text = EXIM.format(
            program=obtain.EXIM, home=place, port=port, sink=sink.port, user=user.pw_uid, group=user.pw_gid
        )
        config.write_text(text)
        for path in (place, place / "spool"):
            os.chown(path, user.pw_uid, user.pw_gid)
        # Debian's Exim does not start without a user of its own, who is there
        # for this process alone.
        for file in ("passwd", "group"):
            (place / file).write_text(Path("/etc", file).read_text() + USERS[file])
        binds = "".join(f"mount --bind {place}/{file} /etc/{file} && " for file in USERS)
        command = ["unshare", "--mount", "sh", "-c", f"{binds} exec {obtain.EXIM} -bdf -C {config}"]
        super().__init__("exim", command, port, place / "exim.out")


AIOSMTPD = """
import asyncio, logging, sys
from aiosmtpd.controller import Controller
from aiosmtpd.handlers import Proxy
logging.disable(logging.CRITICAL)
class Wide(Controller):
    def _create_server(self):
        return self.loop.create_server(self._factory_invoker, host=self.hostname, port=self.port, backlog=1024)
Wide(Proxy("127.0.0.1", int(sys.argv[2])), hostname="127.0.0.1", port=int(sys.argv[1]), data_size_limit=60000000).start()
asyncio.new_event_loop().run_forever()
"""


def aiosmtpd(sink: Sink, home: Path, _options: Namespace) -> Daemon:
    """aiosmtpd with its Proxy handler."""
    (port,) = measure.free_ports(1)
    script = home / "proxy.py"
    script.write_text(AIOSMTPD)
    command = [obtain.python_with("aiosmtpd"), script, str(port), str(sink.port)]
    return Daemon("aiosmtpd", command, port, home / "aiosmtpd.log")


HARAKA = {
    "smtp.ini": "listen=127.0.0.1:{port}\nnodes=2\n[headers]\n",
    "plugins": "take_all\nqueue/smtp_proxy\n",
    "smtp_proxy.ini": "host=127.0.0.1\nport={sink}\n",
    "loglevel": "LOGERROR\n",
    "me": "haraka.example\n",
    "databytes": "60000000\n",
    "host_list": "server.example\n",
}
TAKE_ALL = "exports.hook_rcpt = (next) => next(OK)\n"


def haraka(sink: Sink, home: Path, _options: Namespace) -> Daemon:
    """Haraka with its smtp_proxy, one process a core."""
    (port,) = measure.free_ports(1)
    place = home / "haraka"
    for part in ("config", "plugins"):
        (place / part).mkdir(parents=True, exist_ok=True)
    for name, text in HARAKA.items():
        (place / "config" / name).write_text(text.format(port=port, sink=sink.port))
    shipped = obtain.haraka_script().parent.parent / "config/connection.ini"
    (place / "config/connection.ini").write_text(shipped.read_text().replace("bytes=26214400", "bytes=60000000"))
    (place / "plugins/take_all.js").write_text(TAKE_ALL)
    command = [program("node"), obtain.haraka_script(), "-c", place]
    return Daemon("haraka", command, port, home / "haraka.log", cwd=place)


def mailonce(name: str, sink: Sink, home: Path, options: Namespace) -> peers.Mailonce:
    return peers.Mailonce(name, f"127.0.0.1:{sink.port}", home, options)


STARTERS = {
    "direct": lambda sink, *_: peers.Direct(sink),
    "haproxy": peers.haproxy,
    "postfix": peers.Postfix,
    "nginx": Nginx,
    "exim": Exim,
    "haraka": haraka,
    "aiosmtpd": aiosmtpd,
}


def start(name: str, sink: Sink, home: Path, options: Namespace):
    """Starts one by name."""
    if name in STARTERS:
        return STARTERS[name](sink, home, options)
    return mailonce(name, sink, home, options)
