"""What a Hub keeps: repositories with their commit history, and contents by hash. No HTTP here."""

from __future__ import annotations

import base64
import hashlib
import re
import threading
from dataclasses import dataclass, field

import yaml

LFS_SUFFIXES = (".safetensors", ".parquet", ".arrow", ".bin", ".pt", ".pth", ".png", ".zip")
LICENSES = {
    "apache-2.0",
    "mit",
    "cc0-1.0",
    "cc-by-4.0",
    "cc-by-sa-4.0",
    "bsd-3-clause",
    "psf-2.0",
    "unknown",
    "other",
}
REPO_ID = re.compile(r"[\w.-]{1,96}(/[\w.-]{1,96})?")


@dataclass(frozen=True)
class Entry:
    """One file of a commit."""

    sha256: str
    oid: str  # git blob id of a regular file, sha256 of an LFS file: what the client compares with its own
    size: int
    is_lfs: bool

    def describe(self, path: str) -> dict:
        pointer = {"lfs": {"oid": self.sha256, "size": self.size, "pointerSize": 134}} if self.is_lfs else {}
        return {"type": "file", "path": path, "oid": self.oid[:40], "size": self.size, **pointer}


@dataclass
class Repo:
    kind: str  # "model" or "dataset"
    id: str
    private: bool
    commits: dict[str, dict[str, Entry]] = field(
        default_factory=dict
    )  # commit id -> path -> entry, oldest first
    messages: dict[str, str] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)

    def commit(self, branch: str, files: dict[str, Entry], message: str) -> str:
        parent = self.branches.get(branch)
        oid = hashlib.sha1(f"{self.id}{parent}{sorted(files.items())}{message}".encode()).hexdigest()
        self.commits[oid], self.messages[oid], self.branches[branch] = files, message, oid
        return oid

    def files_at(self, rev: str) -> tuple[str, dict[str, Entry]]:
        """Commit id and files of a branch name or commit id."""
        oid = self.branches.get(rev, rev)
        if oid not in self.commits:
            raise Refuse(404, f"Invalid rev id: {rev}", "RevisionNotFound")
        return oid, self.commits[oid]

    def tree(self, rev: str, folder: str, is_recursive: bool) -> list[dict]:
        """Folders and files below a folder, as the Hub lists them."""
        _, files = self.files_at(rev)
        prefix = f"{folder}/" if folder else ""
        below = {path: entry for path, entry in sorted(files.items()) if path.startswith(prefix)}
        if folder and not below:
            raise Refuse(404, f"{folder} does not exist on {rev}", "EntryNotFound")
        folders: dict[str, dict] = {}
        found = []
        for path, entry in below.items():
            inner = path[len(prefix) :].split("/")[:-1]
            for depth in range(1, len(inner) + 1):
                name = prefix + "/".join(inner[:depth])
                if depth == 1 or is_recursive:
                    folders[name] = {
                        "type": "directory",
                        "path": name,
                        "oid": hashlib.sha1(name.encode()).hexdigest(),
                        "size": 0,
                    }
            if not inner or is_recursive:
                found.append(entry.describe(path))
        return [*folders.values(), *found]


class Refuse(Exception):
    def __init__(
        self, status: int, message: str, code: str | None = None, headers: dict[str, str] | None = None
    ):
        self.status, self.message, self.code, self.headers = status, message, code, headers or {}


class Faults:
    """What goes wrong with the requests that come next."""

    lock: threading.RLock

    def __init__(self) -> None:
        self._faults: dict[str, tuple[int, float]] = {}
        self._refusals: dict[str, list[Refuse]] = {}

    def fail_next(self, kind: str, after_bytes: int = 0, times: float = float("inf")) -> None:
        """Cut the next `times` connections of a kind; `heal` ends it. Clients try uploads several times.

        Kinds: "lfs-put" and "commit" break off after that many bytes of the request's body, "commit-answer"
        stores the commit and never says so, "download" breaks off after that many bytes of the answer,
        "resolve" before any of it.
        """
        assert kind in ("lfs-put", "commit", "commit-answer", "download", "resolve"), kind
        self._faults[kind] = (after_bytes, times)

    def refuse_next(
        self, step: str, status: int, times: int = 1, headers: dict[str, str] | None = None, message: str = "busy"
    ) -> None:
        """Answer the next `times` requests of a step with this status, and leave all as it is; steps are named after
        the endpoints below. "commit-answer" is after the commit was stored."""
        self._refusals.setdefault(step, []).extend([Refuse(status, message, headers=headers)] * times)

    def refuse(self, step: str) -> None:
        with self.lock:
            waiting = self._refusals.get(step)
            refusal = waiting.pop(0) if waiting else None
        if refusal is not None:
            raise refusal

    def heal(self) -> None:
        self._faults.clear()
        self._refusals.clear()

    def fault(self, kind: str) -> int | None:
        with self.lock:
            after_bytes, times = self._faults.get(kind, (0, 0))
            if times < 1:
                return None
            self._faults[kind] = (after_bytes, times - 1)
            return after_bytes


class Store:
    """All repositories of a Hub. `lock` guards what must not interleave: creating and committing."""

    def __init__(self) -> None:
        super().__init__()
        self.repos: dict[tuple[str, str], Repo] = {}
        self.blobs: dict[str, bytes] = {}  # sha256 -> content
        self.lock = threading.RLock()

    def repo(self, repo_id: str, kind: str = "model") -> Repo:
        if (kind, repo_id) not in self.repos:
            raise Refuse(404, "Repository not found", "RepoNotFound")
        return self.repos[kind, repo_id]

    def head(self, repo_id: str, kind: str = "model", branch: str = "main") -> str:
        return self.repo(repo_id, kind).branches[branch]

    def files(self, repo_id: str, kind: str = "model", revision: str = "main") -> dict[str, bytes]:
        repo = self.repo(repo_id, kind)
        entries = repo.commits[repo.branches.get(revision, revision)]
        return {path: self.blobs[entry.sha256] for path, entry in entries.items()}

    def store(self, content: bytes, is_lfs: bool) -> Entry:
        sha256 = hashlib.sha256(content).hexdigest()
        self.blobs[sha256] = content
        git = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        return Entry(sha256, sha256 if is_lfs else git, len(content), is_lfs)

    def create(self, kind: str, repo_id: str, private: bool) -> bool:
        """Whether the repository is new."""
        with self.lock:
            if (kind, repo_id) in self.repos:
                return False
            repo = self.repos[kind, repo_id] = Repo(kind, repo_id, private)
            repo.commit(
                "main", {".gitattributes": self.store(b"*.safetensors filter=lfs\n", False)}, "initial commit"
            )
        return True

    def commit(self, repo: Repo, rev: str, lines: list[dict]) -> str:
        """Apply the lines of a commit to a branch, all or none of them; returns the commit id."""
        header = next(line["value"] for line in lines if line["key"] == "header")
        with self.lock:
            if rev not in repo.branches:
                raise Refuse(404, f"Invalid rev id: {rev}", "RevisionNotFound")
            if header.get("parentCommit") not in (None, repo.branches[rev]):
                raise Refuse(412, "A commit has happened since. Please refresh and try again.")
            files = dict(repo.commits[repo.branches[rev]])
            for line in lines:
                self.apply(line["key"], line["value"], files)
            return repo.commit(rev, files, header["summary"])

    def apply(self, operation: str, value: dict, files: dict[str, Entry]) -> None:
        """One line of a commit, on a copy of the parent's files: a refusal leaves the repository alone."""
        path = value.get("path")
        if operation == "file":
            content = (
                base64.b64decode(value["content"])
                if value.get("encoding") == "base64"
                else value["content"].encode()
            )
            if path == "README.md" and (errors := card_errors(content.decode())):
                raise Refuse(400, f"Invalid metadata in README.md: {errors}")
            files[path] = self.store(content, is_lfs=False)
        elif operation == "lfsFile":
            if value["oid"] not in self.blobs:
                raise Refuse(400, f"LFS pointer of {path} points to an object that was not uploaded")
            files[path] = Entry(value["oid"], value["oid"], len(self.blobs[value["oid"]]), is_lfs=True)
        elif operation == "deletedFile":
            if files.pop(path, None) is None:
                raise Refuse(404, f"A file with this name doesn't exist: {path}", "EntryNotFound")
        elif operation == "deletedFolder":
            for name in [name for name in files if name.startswith(path.rstrip("/") + "/")]:
                del files[name]


def card_errors(text: str) -> list[str]:
    """What the Hub objects to in a card's metadata (the parts of its schema that matter here)."""
    match = re.match(r"---\s*\n(.*?)\n---\s*(\n|$)", text, re.DOTALL)
    try:
        data = yaml.safe_load(match[1]) if match else {}
    except yaml.YAMLError as error:
        return [f"invalid YAML: {error}"]
    if not isinstance(data, dict):
        return ["metadata must be a mapping"]
    errors = (
        [f'"license" {data["license"]!r} is unknown'] if data.get("license", "mit") not in LICENSES else []
    )
    errors += [
        f'"datasets" {name!r} is no repo id'
        for name in data.get("datasets", [])
        if not REPO_ID.fullmatch(name)
    ]
    for model in data.get("model-index", []):
        for result in model["results"]:
            if not (result["task"]["type"] and result["dataset"]["type"] and result["dataset"]["name"]):
                errors.append('"model-index" result without task or dataset')
            errors += [
                '"model-index" metric without type'
                for m in result["metrics"]
                if not m["type"] or "value" not in m
            ]
    return errors
