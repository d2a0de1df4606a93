"""A server on this machine that speaks the protocol of the Hugging Face hub, for whole files.

Weights are answered with a redirect to another path, as the hub does to its store.
"""

import contextlib
import hashlib
import http.server
import json
import pathlib
import threading
import urllib.parse

WEIGHTS = (".pth", ".pt", ".bin", ".safetensors")


class Hub:
    """Repositories, what was asked for, and what goes wrong.

    Attributes:
      repos: name -> directory.
      closed: repositories that need a login ("gated": with agreement to their terms).
      cut: paths whose connection breaks in the middle, once.
      refused: paths that the store does not give out.
      gets: (path, Range header) of every file that was sent.
    """

    def __init__(self, repos):
        self.repos = {name: pathlib.Path(path) for name, path in repos.items()}
        self.closed, self.cut, self.refused, self.gets = {}, set(), set(), []
        self.licence = "mit"

    def commit(self, repo):
        return hashlib.sha1(repo.encode()).hexdigest()

    def files(self, repo):
        folder = self.repos[repo]
        return {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}

    @contextlib.contextmanager
    def serving(self):
        """Yields the address."""

        class Handler(_Handler):
            hub = self

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


class _Handler(http.server.BaseHTTPRequestHandler):
    hub: Hub

    def log_message(self, *args):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path).strip("/")
        kind, _, rest = path.partition("/")
        if kind == "api":
            kind, _, rest = rest.partition("/")
            if kind == "models":
                self._model(*rest.split("/", 2))
            else:  # what the library asks for by itself
                self._answer(404, {})
        elif kind == "store":
            org, name, file = rest.split("/", 2)
            self._send(f"{org}/{name}", file, {})
        else:
            org, name, _, revision, file = path.split("/", 4)
            self._file(f"{org}/{name}", revision, file)

    def _known(self, repo, revision):
        if self.hub.closed.get(repo) == "gated":
            self._answer(403, {"X-Error-Code": "GatedRepo"})
        elif repo in self.hub.closed or repo not in self.hub.repos:
            self._answer(401, {"X-Error-Code": "RepoNotFound"})
        elif revision not in ("main", self.hub.commit(repo)):
            self._answer(404, {"X-Error-Code": "RevisionNotFound"})
        else:
            return True
        return False

    def _model(self, org, name, rest="revision/main"):
        repo = f"{org}/{name}"
        if not self._known(repo, rest.removeprefix("revision/")):
            return
        files = self.hub.files(repo)
        siblings = [{"rfilename": f, "size": p.stat().st_size} for f, p in files.items()]
        card = {"license": self.hub.licence} if self.hub.licence else {}
        model = {"id": repo, "sha": self.hub.commit(repo), "siblings": siblings, "cardData": card}
        self._answer(200, {"Content-Type": "application/json"}, json.dumps(model).encode())

    def _file(self, repo, revision, file):
        if not self._known(repo, revision):
            return
        headers = {"X-Repo-Commit": self.hub.commit(repo)}
        path = self.hub.files(repo).get(file)
        if path is None:
            self._answer(404, {**headers, "X-Error-Code": "EntryNotFound"})
        elif file.endswith(WEIGHTS):
            content = path.read_bytes()
            headers["X-Linked-Etag"] = f'"{hashlib.sha256(content).hexdigest()}"'
            headers["X-Linked-Size"] = str(len(content))
            port = self.headers["Host"].split(":")[1]
            headers["Location"] = f"http://localhost:{port}/store/{repo}/{urllib.parse.quote(file)}"
            self._answer(302, headers)
        else:
            self._send(repo, file, headers)

    def _send(self, repo, file, headers):
        content = self.hub.files(repo)[file].read_bytes()
        headers = {**headers, "ETag": f'"{hashlib.sha256(content).hexdigest()}"'}
        if self.command == "GET":
            self.hub.gets.append((f"{repo}/{file}", self.headers.get("Range")))
            if f"{repo}/{file}" in self.hub.refused:
                self._answer(403, {})
                return
        code, start = 200, 0
        if asked := self.headers.get("Range"):
            code, start = 206, int(asked.removeprefix("bytes=").split("-")[0])
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        content = content[start:]
        half = None
        if self.command == "GET" and f"{repo}/{file}" in self.hub.cut:
            self.hub.cut.discard(f"{repo}/{file}")
            half = len(content) // 2
        self._answer(code, headers, content, half)

    def _answer(self, code, headers, content=b"", sent=None):
        """Answers; of `content` no more than `sent` bytes go out."""
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content[:sent])
        self.close_connection = True
