"""One commit to the Hub: made once, however often the connection breaks off or the Hub is too busy to answer."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import filter_repo_objects

from hf_noise.hub.errors import CHANGED, explained, is_network
from hf_noise.hub.retry import is_busy, patiently, pause, wait_before

__all__ = ["commit_files", "make_repo"]

_ASKED_AT_ONCE = 500  # paths in one question


def commit_files(
    repo_id: str,
    kind: str,
    files: Mapping[str, Path | bytes],
    *,
    stale: Sequence[str],
    private: bool | None,
    token: str | bool | None,
    revision: str | None,
    message: str,
    head: str | None = None,
    consequence: str = "Run the same push again.",
) -> CommitInfo:
    """One commit with these files; remote files that match `stale` and are not among them are deleted in it.

    `head` is the commit that the files were made for, by default the present one.

    Raises:
        ConnectionError, PermissionError, RuntimeError: see `hf_noise.hub.errors.explained`.
    """
    api = HfApi(token=token)
    # The connection may also break after the Hub stored the commit and before it said so.
    kept = f"The repository holds its previous commit, or this one as a whole. {consequence}"
    doing = f"pushing a {'data set' if kind == 'dataset' else kind} to"
    with explained(repo_id, doing, kept, largest=_largest(files)):
        make_repo(api, repo_id, kind, private, revision)
        head = head or patiently(lambda: api.repo_info(repo_id, repo_type=kind, revision=revision)).sha
        remote = patiently(lambda: api.list_repo_files(repo_id, repo_type=kind, revision=head))
        gone = [name for name in filter_repo_objects(remote, allow_patterns=list(stale)) if name not in files]
        operations = [CommitOperationAdd(name, content) for name, content in sorted(files.items())]
        operations += [CommitOperationDelete(name) for name in gone]
        return _commit(api, repo_id, kind, operations, message, revision, head)


def make_repo(api: HfApi, repo_id: str, kind: str, private: bool | None, revision: str | None) -> None:
    """Make the repository and the branch, where they are not there."""
    patiently(lambda: api.create_repo(repo_id, repo_type=kind, private=private, exist_ok=True))
    if revision is not None:
        patiently(lambda: api.create_branch(repo_id, repo_type=kind, branch=revision, exist_ok=True))


def _commit(
    api: HfApi, repo_id: str, kind: str, operations: Sequence, message: str, revision: str | None, head: str
) -> CommitInfo:
    tried, is_unsure = 0, False
    while True:
        tried += 1
        try:
            return api.create_commit(
                repo_id,
                operations,
                commit_message=message,
                repo_type=kind,
                revision=revision,
                # Without it, two pushes at the same time could mix one's card with the other's weights.
                parent_commit=head,
            )
        except Exception as error:
            is_lost = is_network(error) and not isinstance(error, HfHubHTTPError)
            # Whatever uploads came before, the client has tried them again itself.
            if not (is_lost or is_busy(error) or is_unsure) or not _is_of_commit(error):
                raise
            # A gateway that gave up, or a broken connection: the commit may be stored all the same.
            is_unsure = is_unsure or is_lost or error.response.status_code >= 500
            if is_unsure:
                now = patiently(lambda: api.repo_info(repo_id, repo_type=kind, revision=revision)).sha
                if now != head:
                    if not _holds(api, repo_id, kind, now, operations):
                        raise RuntimeError(f"{repo_id!r}: {CHANGED}") from error
                    folder = "datasets/" if kind == "dataset" else ""
                    url = f"{api.endpoint}/{folder}{repo_id}/commit/{now}"
                    return CommitInfo(commit_url=url, commit_message=message, commit_description="", oid=now)
            wait = wait_before(tried, error)
            if wait is None:
                raise
            pause(wait, error)


def _is_of_commit(error: BaseException) -> bool:
    """Whether the request that failed was the commit, or the check of the card's metadata before it."""
    try:
        path = error.response.request.url.path if isinstance(error, HfHubHTTPError) else error.request.url.path
    except (AttributeError, RuntimeError):  # the HTTP library raises RuntimeError where there is no request
        return False
    return "/commit/" in path or path.endswith("/validate-yaml")


def _holds(api: HfApi, repo_id: str, kind: str, revision: str, operations: Sequence) -> bool:
    """Whether a commit of the repository has all that these operations add, byte for byte, and nothing they delete."""
    added = {op.path_in_repo: op for op in operations if isinstance(op, CommitOperationAdd)}
    paths = [op.path_in_repo for op in operations]
    found = {}
    for first in range(0, len(paths), _ASKED_AT_ONCE):
        part = paths[first : first + _ASKED_AT_ONCE]
        there = patiently(lambda part=part: api.get_paths_info(repo_id, part, revision=revision, repo_type=kind))
        found |= {file.path: file for file in there}
    return found.keys() == added.keys() and all(_is_same(found[path], added[path]) for path in added)


def _is_same(remote, operation: CommitOperationAdd) -> bool:
    if remote.lfs is not None:
        return remote.lfs.sha256 == operation.upload_info.sha256.hex()
    with operation.as_file() as file:
        content = file.read()
    return remote.blob_id == hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()  # as git names it


def _largest(files: Mapping[str, Path | bytes]) -> str:
    """The largest files with their sizes, for a Hub that finds something too large."""

    def sizes() -> Iterator[tuple[int, str]]:
        for name, content in files.items():
            yield (len(content) if isinstance(content, bytes) else content.stat().st_size), name

    return ", ".join(f"{name} ({size:,} bytes)" for size, name in sorted(sizes(), reverse=True)[:3])
