"""A small Hugging Face hub on localhost: the endpoints its client uses to read model repositories."""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlparse


def commit_of(files: dict[str, bytes]) -> str:
    return hashlib.sha1(json.dumps({name: data.hex() for name, data in files.items()}).encode()).hexdigest()


@dataclass
class FakeHub:
    """Repositories by id; each is revision -> {path: content}. A commit hash is derived from the content.

    Attributes:
        requests: paths that were asked for.
        truncate: serve only half of every file's body.
        truncated: paths of which only half is served.
        hidden: paths that are not found by themselves, though the repository lists and serves them in snapshots.
    """

    repos: dict[str, dict[str, dict[str, bytes]]] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    truncate: bool = False
    truncated: set[str] = field(default_factory=set)
    hidden: set[str] = field(default_factory=set)

    def add(self, repo: str, files: dict[str, str], revision: str = "main") -> str:
        content = {name: text.encode() for name, text in files.items()}
        self.repos.setdefault(repo, {})[revision] = content
        return commit_of(content)

    def find(self, repo: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        for name, files in self.repos.get(repo, {}).items():
            if revision in (name, commit_of(files)):
                return commit_of(files), files
        return None

    def __enter__(self) -> FakeHub:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args):
                pass

            def do_GET(self):
                hub.answer(self, body=True)

            def do_HEAD(self):
                hub.answer(self, body=False)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def answer(self, request: BaseHTTPRequestHandler, body: bool) -> None:
        path = unquote(urlparse(request.path).path)
        self.requests.append(path)
        parts = path.strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            return self._info(request, parts[2:], body)
        if len(parts) >= 5 and parts[2] == "resolve":
            return self._file(request, "/".join(parts[:2]), parts[3], "/".join(parts[4:]), body)
        return self._fail(request, 404, "RepoNotFound")

    def _info(self, request, parts, body):
        repo, rest = "/".join(parts[:2]), parts[2:]
        revision = rest[1] if len(rest) > 1 else "main"
        if repo not in self.repos:
            return self._fail(request, 404, "RepoNotFound")
        found = self.find(repo, revision)
        if found is None:
            return self._fail(request, 404, "RevisionNotFound")
        commit, files = found
        if rest and rest[0] == "tree":
            entries = [
                {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                for name, data in files.items()
            ]
            return self._send(request, 200, json.dumps(entries).encode(), {"X-Repo-Commit": commit}, body)
        siblings = [{"rfilename": name} for name in files]
        info = {"id": repo, "modelId": repo, "sha": commit, "siblings": siblings, "private": False, "tags": []}
        return self._send(request, 200, json.dumps(info).encode(), {"X-Repo-Commit": commit}, body)

    def _file(self, request, repo, revision, path, body):
        if repo not in self.repos:
            return self._fail(request, 404, "RepoNotFound")
        found = self.find(repo, revision)
        if found is None:
            return self._fail(request, 404, "RevisionNotFound")
        commit, files = found
        alone = revision != commit  # snapshots are fetched by commit
        if path not in files or (path in self.hidden and alone):
            return self._fail(request, 404, "EntryNotFound", commit)
        half = self.truncate or path in self.truncated
        etag = f'"{hashlib.sha1(files[path]).hexdigest()}"'
        return self._send(request, 200, files[path], {"X-Repo-Commit": commit, "ETag": etag}, body, half)

    def _fail(self, request, status, code, commit=None):
        headers = {"X-Error-Code": code, **({"X-Repo-Commit": commit} if commit else {})}
        self._send(request, status, b"{}", headers, request.command == "GET")

    def _send(self, request, status, data, headers, body, truncate=False):
        request.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            request.send_header(name, value)
        request.end_headers()
        if body:
            request.wfile.write(data[: len(data) // 2] if truncate else data)
            if truncate:
                request.close_connection = True
