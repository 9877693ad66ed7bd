"""The socket that a server listens on, and where what it says goes."""

import errno
import ipaddress
import logging
import os
import socket
import sys
import time
from dataclasses import fields
from importlib.metadata import version as version_of
from pathlib import Path
from urllib.parse import urlsplit

from tidings.config import Settings
from tidings.errors import StartError
from tidings.log import tell
from tidings.store.sqlite.file import path_of

log = logging.getLogger("tidings.server")

BACKLOG = 2048  # connections the kernel holds while a worker is replaced; net.core.somaxconn may be lower

BANNER = """\
Tidings is listening on {url}
Its data is in {data}
Each call can be tried out at {called}/docs, or in another shell:

  tidings={called}/v1
  ann=$(curl -s $tidings/users/create -d '{{"username":"ann"}}' | cut -d'"' -f4)
  curl -s "$tidings/messages/send?type=private" \\
    -d '{{"senderId":"'$ann'","receiverId":"'$ann'","message":"Hi"}}'; echo
  curl -s $tidings/messages/$ann; echo

"""

NO_AUTHENTICATION = (
    "tidings: warning: there is no authentication yet, and {host} is not loopback: "
    "whoever can reach port {port} can read and write everything\n"
)


def listen(settings: Settings) -> socket.socket:
    """A socket that takes connections at once; who connects early waits for the server to be ready.

    Raises StartError if the host has no address here or the port is taken.
    """
    where = f"{settings.host}:{settings.port}"
    reason = OSError(errno.EADDRNOTAVAIL, "it has no address")
    try:
        infos = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise StartError(f"can't find the host {settings.host!r}: {getattr(error, 'strerror', error)}") from None
    infos.sort(key=lambda info: info[0] != socket.AF_INET)
    for family, _, _, _, address in infos:
        try:
            return _listen_on(family, address)
        except OSError as error:
            reason = error
            if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):  # the name's next address may be ours
                break
    if reason.errno == errno.EADDRINUSE:
        raise StartError(f"{where} is in use by another program; choose another --port")
    raise StartError(f"can't listen on {where}: {reason.strerror}")


def _listen_on(family: int, address: tuple[object, ...]) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        # A server restarted at once must not wait for the kernel to forget the last one's connections.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def announce(settings: Settings, listener: socket.socket) -> None:
    """Say where the server listens, where its data is, and how to try it."""
    host, port = listener.getsockname()[:2]
    reached = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  # compared with, not bound to
    data = str(path_of(settings.store).absolute()) if settings.is_embedded else settings.store
    sys.stdout.write(BANNER.format(url=_url(host, port), called=_url(reached, port), data=data))
    sys.stdout.flush()
    _tell(settings, _url(host, port), data)
    if not ipaddress.ip_address(host.partition("%")[0]).is_loopback:
        if settings.log_format == "json":
            tell(log, logging.WARNING, "no_authentication", "whoever can reach port %(port)d can do all", port=port)
        else:
            sys.stderr.write(NO_AUTHENTICATION.format(host=host, port=port))


def _tell(settings: Settings, url: str, data: str) -> None:
    """The same for the log: what runs, where, with which settings that are not the defaults, and how soon."""
    changed = {
        field.name: getattr(settings, field.name)
        for field in fields(Settings)
        if getattr(settings, field.name) != field.default
    }
    if settings.feed:
        changed["feed"] = _without_password(settings.feed)
    shown = "".join(f", {name}={value}" for name, value in changed.items())
    processes = "1 process" if settings.workers == 1 else "%(workers)d processes"
    text = "tidings %(version)s on %(url)s, store %(store)s, " + processes + shown.replace("%", "%%")
    version = version_of("tidings")
    tell(
        log,
        logging.INFO,
        "start",
        text,
        version=version,
        url=url,
        store=data,
        workers=settings.workers,
        settings=changed,
    )
    tell(log, logging.INFO, "ready", "ready in %(ms)d ms", ms=_alive_ms())


def _without_password(url: str) -> str:
    """A URL as it may stand in a log."""
    place = urlsplit(url)
    return place._replace(netloc=place.netloc.rpartition("@")[2]).geturl()


def _alive_ms() -> int:
    """How long this process lives, by the kernel (proc(5): the 22nd field, in ticks since the machine started)."""
    started = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
    return round((time.clock_gettime(time.CLOCK_BOOTTIME) - started) * 1000)


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
