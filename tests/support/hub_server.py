"""A local HTTP server with the endpoints of the Hugging Face hub that `datasets` needs."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import parse_qs, urlsplit

COMMIT = "c0ffee" + "0" * 34  # commit of `main`, the only revision of each data set

Folders = dict[str, dict[str, bytes]]  # content by file name by data set


class Hub(ThreadingHTTPServer):
    """Server of data sets in memory.

    Attributes:
        folders: content of the data sets.
        requested_paths: paths of all requests so far.
    """

    daemon_threads = True

    def __init__(self, folders: Folders) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folders = folders
        self.requested_paths: list[str] = []


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = urlsplit(self.path).path
        self.server.requested_paths.append(path)
        match = re.fullmatch(
            r"(/api)?/datasets/(\w+/\w+)/(revision|tree|paths-info|resolve)/(\w+)/?(.*)", path
        )
        files = self.server.folders.get(match[2]) if match else None
        if match is None or files is None or match[4] not in ("main", COMMIT):
            self._send(404, headers={"X-Error-Code": "RepoNotFound"})
        elif match[3] == "resolve":
            self._send_file(files.get(match[5]))
        else:
            paths = parse_qs(body.decode()).get("paths", [])
            self._send(
                200, json.dumps(_metadata(match[2], match[3], match[5], files, paths)).encode()
            )

    do_HEAD = do_POST = do_GET

    def _send_file(self, content: bytes | None) -> None:
        if content is None:
            return self._send(404, headers={"X-Error-Code": "EntryNotFound"})
        part = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if part is None:
            return self._send(200, content, {"ETag": '"0"'})
        first, last = int(part[1]), min(int(part[2]), len(content) - 1)
        headers = {"Content-Range": f"bytes {first}-{last}/{len(content)}"}
        return self._send(206, content[first : last + 1], headers)

    def _send(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        all_headers = {"Content-Length": str(len(body)), "X-Repo-Commit": COMMIT}
        for name, value in (all_headers | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Suppress the log of requests."""


def _metadata(
    name: str, endpoint: str, folder: str, files: dict[str, bytes], paths: list[str]
) -> object:
    """Return the answer of the endpoints `revision`, `tree` and `paths-info`."""
    if endpoint == "revision":
        return {"id": name, "sha": COMMIT, "siblings": [{"rfilename": path} for path in files]}
    listed = paths if endpoint == "paths-info" else files
    return [
        {"type": "file", "path": path, "size": len(files[path]), "oid": "0" * 40}
        for path in listed
        if path in files and not folder
    ]


@contextmanager
def served(folders: Folders) -> Iterator[Hub]:
    """Serve data sets on a free local port until the block ends."""
    with Hub(folders) as hub:
        Thread(target=hub.serve_forever, daemon=True).start()
        try:
            yield hub
        finally:
            hub.shutdown()
