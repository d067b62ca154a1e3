"""A Hugging Face Hub on loopback: the HTTP protocol that huggingface_hub, datasets and transformers speak.

Repositories of models and data sets live in memory with their whole commit history. Commits are atomic, refer
to uploaded LFS objects by hash and are refused on a stale parent, as on the real Hub. `fail_next` cuts
connections, `refuse_next` answers with an error of HTTP.

    with HubServer() as hub:
        HfApi(endpoint=hub.url, token=hub.token).create_repo("user/x")
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import socket
import struct
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

from hub_store import LFS_SUFFIXES, Faults, Refuse, Repo, Store, card_errors


class Cut(Exception):
    """The connection is to break off here."""


class HubServer(Store, Faults):
    """Start with `with` or `start()`; `url` and `token` are what a client needs, `user` owns the token."""

    def __init__(self, user: str = "user", token: str = "hf_of_the_test_server"):
        super().__init__()
        self.user, self.token = user, token
        self.requests: list[tuple[str, str, int]] = []  # method, path, status (0: cut off)
        self._connections: list[socket.socket] = []
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (_Handler,), {"hub": self}))
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"

    def start(self) -> HubServer:
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def stop(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        for connection in self._connections:  # those that clients keep open would be served on
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    __enter__ = start

    def __exit__(self, *_) -> None:
        self.stop()

    def asked(self, step: str) -> int:
        """How often a step was asked for, whatever came of it."""
        return sum(f"/{step}/" in path or path.endswith(f"/{step}") for _, path, _ in self.requests)


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_) -> None:
        """Quiet: `HubServer.requests` is the log."""

    def setup(self) -> None:
        super().setup()
        self.hub._connections.append(self.connection)

    def do_GET(self) -> None:
        self.answer()

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET

    def answer(self) -> None:
        url = urlsplit(self.path)
        self.query = {key: values[-1] for key, values in parse_qs(url.query).items()}
        self.has_body = "Content-Length" in self.headers or "Transfer-Encoding" in self.headers
        status = 0
        try:
            self.authenticate()
            status = self.route(url.path)
            self.body()  # what a route left unread would be taken for the next request
        except Refuse as refusal:
            self.body()
            headers = {"X-Error-Message": refusal.message} | refusal.headers
            if refusal.code:
                headers["X-Error-Code"] = refusal.code
            status = self.send({"error": refusal.message}, refusal.status, headers)
        except Cut:
            # Linger 0: the client sees a reset, as when a cable is pulled.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            self.rfile.close()
            self.connection.close()
        finally:
            self.hub.requests.append((self.command, url.path, status))

    def authenticate(self) -> None:
        given = self.headers.get("Authorization")
        if given not in (None, f"Bearer {self.hub.token}"):
            raise Refuse(401, "Invalid credentials in Authorization header")
        self.is_user = given is not None

    def route(self, path: str) -> int:
        for (method, pattern), handle in ROUTES.items():
            match = re.fullmatch(pattern, path)
            if match and self.command in method.split():
                groups = {name: unquote(text) for name, text in match.groupdict().items() if text is not None}
                # The address of an upload is its own permission, as on the Hub's storage.
                is_open = self.command in ("GET", "HEAD") or path.startswith(("/lfs", "/api/validate-yaml"))
                if not (is_open or self.is_user):
                    raise Refuse(401, "Invalid username or password.")
                if "id" in groups:
                    kind = "dataset" if groups.pop("type", "").startswith("datasets") else "model"
                    groups["repo"] = self.hub.repo(groups.pop("id"), kind)
                    if groups["repo"].private and not self.is_user:
                        raise Refuse(401, "Invalid username or password.", "RepoNotFound")
                self.hub.refuse(handle.__name__.replace("_", "-"))
                return handle(self, **groups)
        raise Refuse(404, f"no such endpoint: {self.command} {path}")

    # Requests and answers

    def body(self, kind: str | None = None) -> bytes:
        if not self.has_body:
            return b""
        self.has_body = False
        after_bytes = self.hub.fault(kind) if kind else None
        if after_bytes is not None:
            self.rfile.read(min(after_bytes, int(self.headers.get("Content-Length", after_bytes))))
            raise Cut
        if "Content-Length" in self.headers:
            return self.rfile.read(int(self.headers["Content-Length"]))
        chunks = []  # Transfer-Encoding: chunked
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def json(self) -> dict:
        return json.loads(self.body() or b"{}")

    def send(self, content: object, status: int = 200, headers: dict[str, str] | None = None) -> int:
        content = content if isinstance(content, bytes) else json.dumps(content).encode()
        headers = {"Content-Type": "application/json", "Content-Length": str(len(content))} | (headers or {})
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
        return status

    # Endpoints

    def whoami(self) -> int:
        if not self.is_user:
            raise Refuse(401, "Invalid username or password.")
        access = {"displayName": "test", "role": "write"}
        return self.send({"type": "user", "id": "1", "name": self.hub.user, "fullname": self.hub.user, "orgs":
        [],
                          "auth": {"type": "access_token", "accessToken": access}})  # fmt: skip

    def create(self) -> int:
        asked = self.json()
        kind, owner = asked.get("type") or "model", asked.get("organization") or self.hub.user
        if owner != self.hub.user:
            raise Refuse(403, f"You don't have the rights to create a {kind} under the namespace {owner!r}")
        repo_id = f"{owner}/{asked['name']}"
        url = f"{self.hub.url}/{'datasets/' if kind == 'dataset' else ''}{repo_id}"
        answer = {"url": url, "name": repo_id, "id": repo_id}
        is_private = asked.get("private") or asked.get("visibility") == "private"
        if not self.hub.create(kind, repo_id, bool(is_private)):
            return self.send(answer | {"error": "You already created this repo"}, 409)
        return self.send(answer)

    def delete(self) -> int:
        asked = self.json()
        owner = asked.get("organization") or self.hub.user
        repo = self.hub.repo(f"{owner}/{asked['name']}", asked.get("type") or "model")
        del self.hub.repos[repo.kind, repo.id]
        return self.send({})

    def validate_yaml(self) -> int:
        errors = [{"message": error} for error in card_errors(self.json()["content"])]
        return self.send({"errors": errors, "warnings": []}, 400 if errors else 200)

    def info(self, repo: Repo, rev: str = "main") -> int:
        oid, files = repo.files_at(rev)
        when = "2025-01-01T00:00:00.000Z"
        state = {
            "private": repo.private,
            "gated": False,
            "disabled": False,
            "tags": [],
            "downloads": 0,
            "likes": 0,
        }
        siblings = [{"rfilename": path} for path in sorted(files)]
        return self.send({"id": repo.id, "sha": oid, "lastModified": when, "siblings": siblings} | state)

    def refs(self, repo: Repo) -> int:
        branches = [
            {"name": n, "ref": f"refs/heads/{n}", "targetCommit": oid} for n, oid in repo.branches.items()
        ]
        return self.send({"branches": branches, "tags": [], "converts": []})

    def branch(self, repo: Repo, rev: str) -> int:
        with self.hub.lock:
            if rev in repo.branches:
                raise Refuse(409, f"Reference already exists: {rev}")
            repo.branches[rev], _ = repo.files_at(self.json().get("startingPoint", "main"))
        return self.send({})

    def tree(self, repo: Repo, rev: str, folder: str = "") -> int:
        return self.send(repo.tree(rev, folder, self.query.get("recursive", "").lower() == "true"))

    def paths_info(self, repo: Repo, rev: str) -> int:
        content = self.body()
        asked = (
            json.loads(content)["paths"]
            if content[:1] == b"{"
            else parse_qs(content.decode()).get("paths", [])
        )
        _, files = repo.files_at(rev)
        return self.send([files[path].describe(path) for path in asked if path in files])

    def preupload(self, repo: Repo, rev: str) -> int:
        _, files = repo.files_at(rev)
        answer = []
        for asked in self.json()["files"]:
            mode = "lfs" if asked["path"].endswith(LFS_SUFFIXES) or asked["size"] > 10 << 20 else "regular"
            known = {"oid": files[asked["path"]].oid} if asked["path"] in files else {}
            answer.append({"path": asked["path"], "uploadMode": mode, "shouldIgnore": False, **known})
        return self.send({"files": answer})

    def lfs_batch(self, repo: Repo) -> int:
        objects = []
        for asked in self.json()["objects"]:
            put = {"href": f"{self.hub.url}/lfs/{asked['oid']}", "header": {}}
            actions = {"upload": put, "verify": {"href": f"{self.hub.url}/lfs-verify"}}
            objects.append(asked if asked["oid"] in self.hub.blobs else asked | {"actions": actions})
        return self.send({"transfer": "basic", "objects": objects})

    def lfs_put(self, oid: str) -> int:
        content = self.body("lfs-put")
        if hashlib.sha256(content).hexdigest() != oid:
            raise Refuse(400, "content does not match its sha256")
        self.hub.store(content, is_lfs=True)
        return self.send({})

    def lfs_verify(self) -> int:
        asked = self.json()
        if len(self.hub.blobs.get(asked["oid"], b"")) != asked["size"]:
            raise Refuse(404, "object was not uploaded")
        return self.send({})

    def commit(self, repo: Repo, rev: str) -> int:
        lines = [json.loads(line) for line in self.body("commit").splitlines() if line.strip()]
        oid = self.hub.commit(repo, rev, lines)
        if self.hub.fault("commit-answer") is not None:
            raise Cut
        self.hub.refuse("commit-answer")
        return self.send(
            {
                "success": True,
                "commitOid": oid,
                "commitUrl": f"{self.hub.url}/{repo.id}/commit/{oid}",
                "hookOutput": "",
            }
        )

    def resolve(self, repo: Repo, rev: str, path: str) -> int:
        if self.hub.fault("resolve") is not None:
            raise Cut
        oid, files = repo.files_at(rev)
        if path not in files:
            raise Refuse(404, "Entry not found", "EntryNotFound")
        entry, content = files[path], self.hub.blobs[files[path].sha256]
        headers = {
            "X-Repo-Commit": oid,
            "ETag": f'"{entry.oid}"',
            "Accept-Ranges": "bytes",
            "Content-Type": "application/octet-stream",
        }
        if entry.is_lfs:
            headers |= {"X-Linked-Etag": f'"{entry.sha256}"', "X-Linked-Size": str(entry.size)}
        span = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        first = last = 0
        if span:
            first = int(span[1]) if span[1] else max(0, entry.size - int(span[2]))
            last = min(int(span[2]), entry.size - 1) if span[1] and span[2] else entry.size - 1
            if first >= entry.size:
                return self.send(b"", 416, {"Content-Range": f"bytes */{entry.size}"})
            content, headers["Content-Range"] = (
                content[first : last + 1],
                f"bytes {first}-{last}/{entry.size}",
            )
        after_bytes = self.hub.fault("download") if self.command == "GET" else None
        if after_bytes is not None:
            self.send(content[:after_bytes], 200, headers | {"Content-Length": str(len(content))})
            raise Cut
        return self.send(content, 206 if span else 200, headers)


_API, _REV = r"/api/(?P<type>models|datasets)/(?P<id>[^/]+/[^/]+)", r"(?P<rev>[^/]+)"
_GIT = r"/(?P<type>datasets/)?(?P<id>(?!datasets/)[^/]+/[^/]+)"
ROUTES: dict[tuple[str, str], Callable[..., int]] = {
    ("GET", r"/api/whoami-v2"): _Handler.whoami,
    ("POST", r"/api/repos/create"): _Handler.create,
    ("DELETE", r"/api/repos/delete"): _Handler.delete,
    ("POST", r"/api/validate-yaml"): _Handler.validate_yaml,
    ("GET", _API): _Handler.info,
    ("GET", rf"{_API}/revision/{_REV}"): _Handler.info,
    ("GET", rf"{_API}/refs"): _Handler.refs,
    ("POST", rf"{_API}/branch/{_REV}"): _Handler.branch,
    ("GET", rf"{_API}/tree/{_REV}(/(?P<folder>.+))?"): _Handler.tree,
    ("POST", rf"{_API}/paths-info/{_REV}"): _Handler.paths_info,
    ("POST", rf"{_API}/preupload/{_REV}"): _Handler.preupload,
    ("POST", rf"{_API}/commit/{_REV}"): _Handler.commit,
    ("POST", rf"{_GIT}\.git/info/lfs/objects/batch"): _Handler.lfs_batch,
    ("PUT", r"/lfs/(?P<oid>[0-9a-f]{64})"): _Handler.lfs_put,
    ("POST", r"/lfs-verify"): _Handler.lfs_verify,
    ("GET HEAD", rf"{_GIT}/resolve/{_REV}/(?P<path>.+)"): _Handler.resolve,
}
