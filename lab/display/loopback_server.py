"""A web server for one page, which only this machine can reach.

It listens on 127.0.0.1 and answers GET requests for `/`. It reads no files. A request must name the
server's own address in its header `Host`, because another site's page can make a browser send
requests to 127.0.0.1 under the name of that site (DNS rebinding), and could read the response.
"""

import logging
import socketserver
import sys
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any

LOOPBACK = "127.0.0.1"
_IDLE = 30  # seconds after which a connection without a request is closed
_HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
}
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ServedPage:
    """A page, as the server sends it.

    Attributes:
        content: HTML in UTF-8.
        refresh: seconds after which the browser requests the page again; None if it does not.
    """

    content: bytes
    refresh: int | None


class LoopbackServer(socketserver.ThreadingTCPServer):
    """Server of one page on a free port; each request has a thread of its own.

    A browser opens connections before it needs them. A server with one thread would wait for a
    request on such a connection.

    Args:
        read: function that returns the page; called for each request.
    """

    daemon_threads = True

    def __init__(self, read: Callable[[], ServedPage]) -> None:
        self.read = read
        super().__init__((LOOPBACK, 0), _Handler)

    @property
    def port(self) -> int:
        """Port on which the server listens."""
        return int(self.server_address[1])

    @property
    def address(self) -> str:
        """Address of the page."""
        return f"http://{LOOPBACK}:{self.port}/"

    @property
    def hosts(self) -> frozenset[str]:
        """Allowed values of the header `Host`."""
        return frozenset(f"{name}:{self.port}" for name in (LOOPBACK, "localhost"))

    def handle_error(self, _request: Any, _client: Any) -> None:
        """Log an error of a request; a browser that closes a connection early is one."""
        _LOG.warning("a request failed", exc_info=sys.exception())


class _Handler(BaseHTTPRequestHandler):
    server: LoopbackServer
    timeout = _IDLE

    def do_GET(self) -> None:
        """Send the page, or the status of a request that is not for it."""
        if self.headers.get_all("Host", []) not in [[host] for host in self.server.hosts]:
            self.send_error(HTTPStatus.FORBIDDEN, "Host is not the address of this server")
            return
        if self.path != "/":
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        page = self.server.read()
        self.send_response(HTTPStatus.OK)
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(page.content)))
        if page.refresh is not None:
            self.send_header("Refresh", str(page.refresh))
        self.end_headers()
        self.wfile.write(page.content)

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 - name of the base
        """Log a request, instead of printing it."""
        _LOG.info(format, *arguments)
