"""What went wrong between us and the Hub, in words that name the repository and the remedy."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub.errors import (
    HfHubHTTPError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

# Of the disk at home, not of the network.
_LOCAL_ERRNOS = frozenset({
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOENT, errno.EISDIR, errno.ENOTDIR,
    errno.EIO, errno.EMFILE, errno.ENFILE, errno.ELOOP, errno.ENAMETOOLONG,
})  # fmt: skip
_LOG_IN = "log in with `hf auth login`, set HF_TOKEN, or pass token="


#: What became of a push beside another one.
CHANGED = "the repository changed while this push was under way; nothing was overwritten. Run the same push again"


@contextmanager
def explained(repo_id: str, doing: str, consequence: str = "", largest: str = "") -> Iterator[None]:
    """Turn errors of the Hub client into built-in ones; a full or protected local disk keeps its own OSError.

    Args:
        consequence: what holds now, and what to do, if the same may work another time.
        largest: the largest files of a push, named where the Hub finds something too large.

    Raises:
        ConnectionError: no network, offline mode, or a connection that broke off.
        PermissionError: no token, a wrong one, or one without the right to do this.
        FileNotFoundError: there is no such repository or revision.
        RuntimeError: somebody else pushed at the same time, or the Hub answered something else.
    """
    try:
        yield
    except Exception as error:
        # The client wraps what happens in its upload threads: the reason is further down the chain, and the name of the
        # file at its beginning.
        file = f" ({error})" if isinstance(error, RuntimeError) and error.__cause__ is not None else ""
        cause: BaseException | None = error
        while cause is not None:
            explanation = _explain(cause, f"{doing} {repo_id!r}{file}", consequence, largest)
            if explanation is not None:
                raise explanation from cause
            cause = cause.__cause__
        raise


def _explain(error: BaseException, where: str, consequence: str, largest: str) -> Exception | None:
    if isinstance(error, LocalTokenNotFoundError):
        return PermissionError(f"{where} needs a token: {_LOG_IN}")
    if isinstance(error, OfflineModeIsEnabled):
        return ConnectionError(f"{where} is impossible in offline mode; unset HF_HUB_OFFLINE. {consequence}")
    if isinstance(error, RevisionNotFoundError):
        return FileNotFoundError(f"{where}: there is no such revision on the Hub")
    if isinstance(error, RepositoryNotFoundError):
        return FileNotFoundError(
            f"{where}: there is no such repository on the Hub, or it is private and the token cannot see it; "
            f"{_LOG_IN}"
        )
    if isinstance(error, HfHubHTTPError):
        return _explain_status(error, where, consequence, largest)
    if isinstance(error, LocalEntryNotFoundError) or is_network(error):  # "not in the cache, and no answer"
        return ConnectionError(
            f"{where}: the Hub cannot be reached, or broke off ({error}). Check the network and HF_ENDPOINT. "
            f"{consequence}"
        )
    return None


def _explain_status(error: HfHubHTTPError, where: str, consequence: str, largest: str) -> Exception:
    status, said = error.response.status_code, error.server_message or error
    if status in (401, 403):
        return PermissionError(
            f"{where}: the Hub refused the token (HTTP {status}: {said}); it must be valid and have write access: "
            f"{_LOG_IN}"
        )
    if status == 412:
        return RuntimeError(f"{where}: {CHANGED}")
    if status == 413:
        files = f" The largest files are {largest}." if largest else ""
        return RuntimeError(
            f"{where}: too large for the Hub (HTTP 413: {said}); nothing was changed there.{files} Save the weights "
            "in smaller shards (save_pretrained(max_shard_size=)), or take out what does not belong there"
        )
    if status == 429:
        return RuntimeError(
            f"{where}: too many requests for the Hub (HTTP 429: {said}), after a wait too. {consequence} But wait first"
        )
    if status == 408 or status >= 500:
        return RuntimeError(
            f"{where}: the Hub answered HTTP {status}, and still so after several tries: {said}. {consequence}"
        )
    return RuntimeError(
        f"{where}: the Hub refused this (HTTP {status}): {said}. Nothing was changed there, and the same would be "
        "refused again: mend what it names first"
    )


def is_network(error: BaseException) -> bool:
    """Whether a connection could not be made or broke off; not a full or protected disk at home."""
    # The HTTP library below huggingface_hub was exchanged twice; all three raise their own errors for a lost
    # network.
    if isinstance(error, OSError):
        return error.errno not in _LOCAL_ERRNOS
    return type(error).__module__.split(".")[0] in ("httpx", "httpx2", "requests")
