"""The viewer's server: a page and its data over HTTP, for this machine only and for reading only.

GET /                                           the page, and /static/<file> what belongs to it
GET /api/sources                                names, columns and sizes
GET /api/<source>/episodes                      length and number of each episode
GET /api/<source>/summary                       one number per episode by name
GET /api/<source>/columns/<episode>?name=a      rows of numeric columns
GET /api/<source>/frame/<column>/<episode>/<row>.jpg
GET /api/<source>/strip/<column>/<episode>.jpg?count=6&height=56
"""

from __future__ import annotations

import errno
import json
import logging
import math
import re
import secrets
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np

from stable_worldmodel.errors import ContractError, MissingDependencyError, MissingKeyError
from stable_worldmodel.viewer.frames import Frames
from stable_worldmodel.viewer.sources import Source, check_episode, described, open_sources

logger = logging.getLogger(__name__)

HOST = "127.0.0.1"
_STATIC = Path(__file__).parent / "static"
_KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_FILES = {path.name: _KINDS[path.suffix] for path in sorted(_STATIC.iterdir()) if path.suffix in _KINDS}
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; img-src 'self'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_FOREVER = "private, max-age=86400, immutable"  # pictures, whose addresses hold the number of this server's run

Body = tuple[bytes, str]  # content and its type


class ViewerServer(ThreadingHTTPServer):
    """Serves `sources` on 127.0.0.1 until `shutdown`.

    Args:
        port: 0 takes a free one.

    Raises ContractError when the port is taken or cannot be used.
    """

    daemon_threads = True

    def __init__(self, sources: Mapping[str, Source], port: int = 0):
        if not 0 <= port < 65536:
            raise ContractError(f"port={port}: expected 0 (any free one) to 65535")
        self.sources = dict(sources)
        self.frames = Frames(self.sources)
        self.run = secrets.token_hex(8)  # tells the pictures of this server from those of one that had its port before
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise
            raise ContractError(f"port {port} cannot be used: {error.strerror}; name another, or 0 for any") from error

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://{HOST}:{self.server_port}/"

    def accepts_host(self, host: str | None) -> bool:
        """Whether a request came for this server by name; pages of other names must not reach it (DNS rebinding)."""
        return host in (f"{HOST}:{self.server_port}", f"localhost:{self.server_port}")


def open_viewer(place: str | Path, port: int = 0) -> ViewerServer:
    """A server for a dataset or a run. `serve_forever()` starts it, `server_close()` frees the port.

    Raises what `open_sources` and `ViewerServer` raise.
    """
    return ViewerServer(open_sources(place), port)


class _Handler(BaseHTTPRequestHandler):
    server: ViewerServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else the second half of an answer waits for an acknowledgement
    wbufsize = -1  # head and body leave together
    timeout = 60  # of a connection that says nothing

    def do_GET(self) -> None:
        if not self.server.accepts_host(self.headers.get("Host")):
            self._fail(HTTPStatus.FORBIDDEN, f"this page is at {self.server.url}")
            return
        address = urlsplit(self.path)
        try:
            for pattern, answer, cached in _ROUTES:
                if match := pattern.fullmatch(address.path):
                    parts = {name: unquote(value) for name, value in match.groupdict().items()}
                    body, kind = answer(self.server, parts, parse_qs(address.query))
                    self._send(HTTPStatus.OK, body, kind, _FOREVER if cached else "no-store")
                    return
            self._fail(HTTPStatus.NOT_FOUND, "no such page")
        except MissingKeyError as error:
            self._fail(HTTPStatus.NOT_FOUND, str(error))
        except (ContractError, MissingDependencyError) as error:
            self._fail(HTTPStatus.BAD_REQUEST, str(error))
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # the browser has gone on
        except Exception as error:
            logger.exception("%s failed", self.path)
            self._fail(HTTPStatus.INTERNAL_SERVER_ERROR, str(error) or type(error).__name__)

    def _refuse(self) -> None:
        self.close_connection = True  # what else it sent is not read
        self._fail(HTTPStatus.METHOD_NOT_ALLOWED, "only GET is allowed", {"Allow": "GET"})

    do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_TRACE = do_CONNECT = _refuse

    def _fail(self, status: HTTPStatus, message: str, headers: Mapping[str, str] | None = None) -> None:
        self._send(status, *_json({"error": message}), "no-store", headers)

    def _send(
        self, status: HTTPStatus, body: bytes, kind: str, caching: str, headers: Mapping[str, str] | None = None
    ) -> None:
        self.send_response(status)
        about = {"Content-Type": kind, "Content-Length": str(len(body)), "Cache-Control": caching}
        for name, value in {**about, **_HEADERS, **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def version_string(self) -> str:
        return "stable_worldmodel"

    def log_message(self, format: str, *args: Any) -> None:
        logger.debug(format, *args)


# -- answers ----------------------------------------------------------------------------------------------------------

Parts = Mapping[str, str]  # of the path
Query = Mapping[str, list[str]]


def _page(server: ViewerServer, parts: Parts, query: Query) -> Body:
    return _static(server, {"file": "index.html"}, query)


def _static(server: ViewerServer, parts: Parts, query: Query) -> Body:
    name = parts["file"]
    if name not in _FILES:
        raise MissingKeyError(f"no file {name!r}")
    return (_STATIC / name).read_bytes(), _FILES[name]


def _sources(server: ViewerServer, parts: Parts, query: Query) -> Body:
    return _json({"run": server.run, "sources": described(server.sources)})


def _episodes(server: ViewerServer, parts: Parts, query: Query) -> Body:
    source = _source(server, parts)
    return _json({"length": source.lengths.tolist(), "number": source.numbers.tolist()})


def _summary(server: ViewerServer, parts: Parts, query: Query) -> Body:
    return _json({name: _finite(values) for name, values in _source(server, parts).summary().items()})


def _columns(server: ViewerServer, parts: Parts, query: Query) -> Body:
    source = _source(server, parts)
    episode = check_episode(source, int(parts["episode"]))
    found = source.read_columns(episode, query.get("name", []))
    return _json({name: [_finite(line) for line in values.T] for name, values in found.items()})


def _frame(server: ViewerServer, parts: Parts, query: Query) -> Body:
    _source(server, parts)
    picture = server.frames.frame(parts["source"], parts["column"], int(parts["episode"]), int(parts["row"]))
    return picture, "image/jpeg"


def _strip(server: ViewerServer, parts: Parts, query: Query) -> Body:
    _source(server, parts)
    count, height = _number(query, "count", 6), _number(query, "height", 56)
    return server.frames.strip(parts["source"], parts["column"], int(parts["episode"]), count, height), "image/jpeg"


def _source(server: ViewerServer, parts: Parts) -> Source:
    if parts["source"] not in server.sources:
        raise MissingKeyError(f"no source {parts['source']!r}; there are {', '.join(server.sources)}")
    return server.sources[parts["source"]]


def _number(query: Query, name: str, default: int) -> int:
    text = query.get(name, [str(default)])[-1]
    if not re.fullmatch(r"[0-9]{1,6}", text):
        raise ContractError(f"{name}={text!r}: expected a whole number")
    return int(text)


def _finite(values: np.ndarray) -> list[float | None]:
    """What JSON can hold: null for NaN and infinities."""
    return [value if math.isfinite(value) else None for value in values.tolist()]


def _json(value: Any) -> Body:
    return json.dumps(value, allow_nan=False, separators=(",", ":")).encode(), "application/json"


_SOURCE, _EPISODE = r"/api/(?P<source>[^/]+)", r"(?P<episode>[0-9]{1,9})"
# Pattern of the path, what answers it, and whether browsers may keep the answer.
_ROUTES: tuple[tuple[re.Pattern[str], Callable[[ViewerServer, Parts, Query], Body], bool], ...] = (
    (re.compile(r"/"), _page, False),
    (re.compile(r"/static/(?P<file>[a-z]+\.[a-z]+)"), _static, False),
    (re.compile(r"/api/sources"), _sources, False),
    (re.compile(rf"{_SOURCE}/episodes"), _episodes, False),
    (re.compile(rf"{_SOURCE}/summary"), _summary, False),
    (re.compile(rf"{_SOURCE}/columns/{_EPISODE}"), _columns, False),
    (re.compile(rf"{_SOURCE}/frame/(?P<column>[^/]+)/{_EPISODE}/(?P<row>[0-9]{{1,9}})\.jpg"), _frame, True),
    (re.compile(rf"{_SOURCE}/strip/(?P<column>[^/]+)/{_EPISODE}\.jpg"), _strip, True),
)
