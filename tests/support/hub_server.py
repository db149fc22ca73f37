"""A hub on loopback: the few requests that `datasets` needs, answered from memory."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import parse_qs, urlsplit

COMMIT = "c0ffee" + "0" * 34  # of every data set's only revision, `main`

Folders = dict[str, dict[str, bytes]]  # data set -> file, all in one folder -> content


class Hub(ThreadingHTTPServer):
    """Holds data sets by name, and remembers which paths it was asked for."""

    daemon_threads = True

    def __init__(self, folders: Folders) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folders = folders
        self.asked: list[str] = []


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = urlsplit(self.path).path
        self.server.asked.append(path)
        found = re.fullmatch(
            r"(/api)?/datasets/(\w+/\w+)/(revision|tree|paths-info|resolve)/(\w+)/?(.*)", path
        )
        files = self.server.folders.get(found[2]) if found else None
        if found is None or files is None or found[4] not in ("main", COMMIT):
            self._answer(404, headers={"X-Error-Code": "RepoNotFound"})
        elif found[3] == "resolve":
            self._file(files.get(found[5]))
        else:
            asked = parse_qs(body.decode()).get("paths", [])
            self._answer(
                200, json.dumps(_said(found[2], found[3], found[5], files, asked)).encode()
            )

    do_HEAD = do_POST = do_GET

    def _file(self, content: bytes | None) -> None:
        if content is None:
            return self._answer(404, headers={"X-Error-Code": "EntryNotFound"})
        part = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if part is None:
            return self._answer(200, content, {"ETag": '"it"'})
        first, last = int(part[1]), min(int(part[2]), len(content) - 1)
        said = {"Content-Range": f"bytes {first}-{last}/{len(content)}"}
        return self._answer(206, content[first : last + 1], said)

    def _answer(
        self, status: int, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> None:
        self.send_response(status)
        all_headers = {"Content-Length": str(len(body)), "X-Repo-Commit": COMMIT}
        for name, value in (all_headers | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


def _said(name: str, what: str, under: str, files: dict[str, bytes], asked: list[str]) -> object:
    if what == "revision":
        return {"id": name, "sha": COMMIT, "siblings": [{"rfilename": path} for path in files]}
    wanted = asked if what == "paths-info" else files
    return [
        {"type": "file", "path": path, "size": len(files[path]), "oid": "0" * 40}
        for path in wanted
        if path in files and not under
    ]


@contextmanager
def served(folders: Folders) -> Iterator[Hub]:
    """Serve data sets until the block ends."""
    with Hub(folders) as hub:
        Thread(target=hub.serve_forever, daemon=True).start()
        try:
            yield hub
        finally:
            hub.shutdown()
