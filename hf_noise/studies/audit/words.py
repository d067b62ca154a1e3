"""Features of texts without a network: words and letters, weighted and reduced, in any language and offline."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["word_features"]

#: Of a word or a group of letters: a sign is one too, so that a text of signs alone has some.
_WORD = r"(?u)\w+|[^\w\s]+"
#: Kept of words and of groups of letters, the most frequent.
_MOST_TERMS = 1 << 16
#: Rows to a component, and the most of these: of 2,045 short news of rules 128 foretell held-out labels best, 64 and
#: 256 less well.
_ROWS_EACH, _FEWEST, _MOST = 16, 8, 256


def word_features(
    texts: Sequence[str], test: Sequence[str] | None = None, seed: int = 0
) -> tuple[np.ndarray, np.ndarray | None]:
    """TF-IDF of words and pairs of them and of 2 to 5 letters, in their largest singular directions.

    Terms, weights and directions are those of `texts` as a whole. They are made without labels, so that a row which is
    judged out of fold gives nothing of its label away by having been among them.

    Args:
        texts: N >= 2, none blank.
        test: further ones, in the same directions.
        seed: of the decomposition.

    Returns:
        float32 [N, D], D = N / 16 in [8, 256] or less where there are fewer terms; and that of `test`, or None. Equal
        texts have equal features, bit by bit.
    """
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_union

    told = {"sublinear_tf": True, "max_features": _MOST_TERMS, "dtype": np.float32}
    terms = make_union(
        TfidfVectorizer(token_pattern=_WORD, ngram_range=(1, 2), **told),
        TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), **told),
    )  # fmt: skip
    weights = terms.fit_transform(texts).tocsr()
    wanted = int(np.clip(len(texts) // _ROWS_EACH, _FEWEST, _MOST))
    reduced = TruncatedSVD(min(wanted, min(weights.shape) - 1), random_state=seed % 2**32).fit(weights)
    # Not `fit_transform`, whose dense product may round copies of a row differently.
    of_test = None if test is None else reduced.transform(terms.transform(test).tocsr()).astype(np.float32)
    return reduced.transform(weights).astype(np.float32), of_test
