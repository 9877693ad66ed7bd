"""The socket that a server listens on, and where what it says goes."""

import errno
import ipaddress
import logging
import socket
import sys

from tidings.config import Settings
from tidings.errors import StartError
from tidings.store.sqlite.file import path_of

BACKLOG = 2048  # connections the kernel holds while a worker is replaced; net.core.somaxconn may be lower

BANNER = """\
Tidings is listening on {url}
Its data is in {data}
Try it, in another shell:

  ann=$(curl -s "{called}/v1/users/create" -d '{{"username":"Ann"}}' | cut -d'"' -f4); echo $ann
  curl -s "{called}/v1/messages/send?type=private" \
-d '{{"senderId":"'$ann'","receiverId":"'$ann'","message":"Hi"}}'; echo
  curl -s "{called}/v1/messages/$ann"; echo

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
    data = path_of(settings.store).absolute()
    sys.stdout.write(BANNER.format(url=_url(host, port), called=_url(reached, port), data=data))
    sys.stdout.flush()
    if not ipaddress.ip_address(host.partition("%")[0]).is_loopback:
        sys.stderr.write(NO_AUTHENTICATION.format(host=host, port=port))


def log_to_stderr() -> None:
    """Warnings and worse of anybody, and what we ourselves tell of, a line each."""
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("tidings").setLevel(logging.INFO)


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
