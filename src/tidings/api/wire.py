"""Whole HTTP/1.1 responses, for what is answered without ASGI."""

from http import HTTPStatus

from tidings.api.replies import JSON, Reply

_OK = 200  # as a plain number: to look up and compare HTTPStatus.OK takes 0.6 us

Headers = list[tuple[bytes, bytes]]
_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}


class Wire:
    """Writes responses; the head of a plain 200 is made once for each list of common headers, which has the date."""

    def __init__(self) -> None:
        self._common: Headers = []
        self._head = b""

    def response(self, reply: Reply, common: Headers, *, keep_alive: bool) -> bytes:
        """A response, `common` headers first."""
        if reply.headers is JSON and reply.status == _OK:
            if common is not self._common:  # the server makes them anew each second
                self._common, self._head = common, _head(reply, common)
            head = self._head
        else:
            head = _head(reply, common)
        end = b"\r\n\r\n" if keep_alive else b"\r\nconnection: close\r\n\r\n"
        return b"%bcontent-length: %d%b%b" % (head, len(reply.body), end, reply.body)


def _head(reply: Reply, common: Headers) -> bytes:
    return _STATUS_LINES[reply.status] + b"".join(b"%b: %b\r\n" % header for header in (*common, *reply.headers))
