"""The server of the live page answers requests for its page that name its own address."""

import http.client
import socket
import threading
from collections.abc import Iterator
from itertools import count

import pytest

from lab.display.loopback_server import LoopbackServer, ServedPage


@pytest.fixture
def server() -> Iterator[LoopbackServer]:
    """Return a running server whose page is the number of the request."""
    numbers = count(1)
    read = lambda: ServedPage(content=f"<p>{next(numbers)}".encode(), refresh=11)  # noqa: E731
    with LoopbackServer(read) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def request(
    server: LoopbackServer, method: str = "GET", path: str = "/", host: str | None = None
) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.request(method, path, headers={} if host is None else {"Host": host})
    return connection.getresponse()


def test_server_listens_on_the_loopback_address_alone(server: LoopbackServer) -> None:
    assert server.socket.getsockname()[0] == "127.0.0.1"


def test_browser_gets_the_page_and_the_time_of_its_next_request(server: LoopbackServer) -> None:
    responses = [request(server), request(server, host=f"localhost:{server.port}")]
    assert [response.status for response in responses] == [200, 200]
    assert [response.read() for response in responses] == [b"<p>1", b"<p>2"]
    headers = dict(responses[0].getheaders())
    assert headers["Refresh"] == "11"
    assert headers["Cache-Control"] == "no-store"
    assert headers["Content-Type"] == "text/html; charset=utf-8"


@pytest.mark.parametrize("host", ["example.com", "127.0.0.1", "127.0.0.1:1", "[::1]", ""])
def test_request_under_another_name_is_refused(server: LoopbackServer, host: str) -> None:
    """A site whose name resolves to 127.0.0.1 must not read the page."""
    response = request(server, host=host)
    assert response.status == 403
    assert b"<p>1" not in response.read()


def test_request_without_a_name_or_with_two_is_refused(server: LoopbackServer) -> None:
    own = f"Host: 127.0.0.1:{server.port}\r\n"
    for headers in ("", own + "Host: example.com\r\n"):
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
            connection.sendall(f"GET / HTTP/1.1\r\n{headers}\r\n".encode())
            assert b" 403 " in connection.makefile("rb").readline()


@pytest.mark.parametrize("path", ["/favicon.ico", "/../report.html", "/?a=1", "/report.html"])
def test_there_is_one_page(server: LoopbackServer, path: str) -> None:
    assert request(server, path=path).status == 404


@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT", "DELETE", "OPTIONS"])
def test_page_can_only_be_read(server: LoopbackServer, method: str) -> None:
    assert request(server, method).status == 501


def test_unused_connections_of_a_browser_delay_no_request(server: LoopbackServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=30):
        assert request(server).status == 200


def test_error_while_the_page_is_read_ends_that_request_alone() -> None:
    pages = iter([ServedPage(content=b"", refresh=None)])
    with LoopbackServer(lambda: next(pages)) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        assert "Refresh" not in dict(request(server).getheaders())
        with pytest.raises(http.client.RemoteDisconnected):
            request(server)
        assert request(server, path="/other").status == 404
        server.shutdown()
        thread.join()
