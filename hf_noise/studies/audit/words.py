"""Features of texts without a network: words and letters, weighted and reduced, in any language and offline."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["cut_note", "word_features"]

#: Of a word or a group of letters: a sign is one too, so that a text of signs alone has some.
_WORD = r"(?u)\w+|[^\w\s]+"
#: Kept of words and of groups of letters, the most frequent.
_MOST_TERMS = 1 << 16
#: Rows to a component, and the most of these: of 2,045 short news of rules 128 foretell held-out labels best, 64 and
#: 256 less well.
_ROWS_EACH, _FEWEST, _MOST = 16, 8, 256
#: Letters of a text that are read: groups of them take a second for a few million.
_LONGEST = 10_000


def cut_note(texts: Sequence[str]) -> str | None:
    """How many texts are not read to their end, in words; None if all are."""
    long = sum(len(text) > _LONGEST for text in texts)
    if not long:
        return None
    return f"of {long:,} texts only the first {_LONGEST:,} letters are read (the longest has {max(map(len, texts)):,})"


def word_features(
    texts: Sequence[str], test: Sequence[str] | None = None, seed: int = 0
) -> tuple[np.ndarray, np.ndarray | None]:
    """TF-IDF of words and pairs of them and of 2 to 5 letters, in their largest singular directions.

    Terms, weights and directions are those of `texts` as a whole. They are made without labels, so that a row which is
    judged out of fold gives nothing of its label away by having been among them.

    Args:
        texts: N >= 2, none blank; of each the first 10,000 letters are read.
        test: further ones, in the same directions.
        seed: of the decomposition.

    Returns:
        float32 [N, D], D = N / 16 in [8, 256] or less where there are fewer terms; and that of `test`, or None. Equal
        texts have equal features, bit by bit.
    """
    from scipy.sparse import hstack
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer
    from tqdm import tqdm

    def read(texts: Sequence[str], what: str) -> tqdm:
        return tqdm([text[:_LONGEST] for text in texts], desc=what, unit=" texts", leave=False)

    told = {"sublinear_tf": True, "max_features": _MOST_TERMS, "dtype": np.float32}
    terms = {
        "words": TfidfVectorizer(token_pattern=_WORD, ngram_range=(1, 2), **told),
        "letters": TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), **told),
    }
    weights = hstack([of.fit_transform(read(texts, what)) for what, of in terms.items()]).tocsr()
    wanted = int(np.clip(len(texts) // _ROWS_EACH, _FEWEST, _MOST))
    reduced = TruncatedSVD(min(wanted, min(weights.shape) - 1), random_state=seed % 2**32).fit(weights)
    # Not `fit_transform`, whose dense product may round copies of a row differently.
    found = reduced.transform(weights).astype(np.float32)
    if test is None:
        return found, None
    of_test = hstack([of.transform(read(test, f"{what} of the test")) for what, of in terms.items()]).tocsr()
    return found, reduced.transform(of_test).astype(np.float32)
