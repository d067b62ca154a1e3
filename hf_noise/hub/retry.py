"""Patience with the Hub: what it is too busy for (429, 5xx) is asked again, after a wait that grows.

huggingface_hub does so for uploads, listings and downloads, and not for what is asked here: to make a repository or a
branch, to tell its state, and to commit.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import TypeVar

from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import parse_ratelimit_headers

__all__ = ["FIRST_WAIT", "LONGEST_WAIT", "TRIES", "is_busy", "patiently", "wait_before"]

logger = logging.getLogger(__name__)

BUSY = frozenset({408, 429, 500, 502, 503, 504})
TRIES = 6
FIRST_WAIT = 1.0  # seconds; then twice as long each time
LONGEST_WAIT = 600.0  # seconds that the Hub may ask for; its limits are per five minutes

T = TypeVar("T")


def is_busy(error: BaseException) -> bool:
    """Whether the Hub said that it cannot answer now."""
    return isinstance(error, HfHubHTTPError) and error.response.status_code in BUSY


def wait_before(tried: int, error: BaseException) -> float | None:
    """Seconds to wait after so many tries, None if there is nothing to wait for: the Hub's own word, or 1, 2, 4, ..."""
    headers = error.response.headers if isinstance(error, HfHubHTTPError) else {}
    wait = _asked_for(headers)
    if tried >= TRIES or (wait or 0) > LONGEST_WAIT:
        return None
    return FIRST_WAIT * 2 ** (tried - 1) if wait is None else wait + 1  # whole seconds were rounded


def patiently(ask: Callable[[], T]) -> T:
    """`ask()`, again and again while the Hub is too busy, at most `TRIES` times; the last error is raised."""
    for tried in range(1, TRIES + 1):
        try:
            return ask()
        except HfHubHTTPError as error:
            wait = wait_before(tried, error) if is_busy(error) else None
            if wait is None:
                raise
            pause(wait, error)
    raise AssertionError("the last try returns or raises")


def pause(wait: float, error: BaseException) -> None:
    """Sleep, and say why."""
    said = (str(error).splitlines() or [type(error).__name__])[0]
    logger.warning("the Hub is busy (%s); trying again in %.0f s", said, wait)
    time.sleep(wait)


def _asked_for(headers: Mapping[str, str]) -> float | None:
    limit = parse_ratelimit_headers(headers)
    if limit is not None and limit.remaining == 0:
        return float(limit.reset_in_seconds)
    text = next((value.strip() for key, value in headers.items() if key.lower() == "retry-after"), "")
    if text.isdigit():
        return float(text)
    try:
        until = parsedate_to_datetime(text)
    except ValueError:  # there is none, or it is no date
        return None
    return max(0.0, (until - datetime.now(timezone.utc)).total_seconds()) if until.tzinfo else None
