"""BLEU, chrF and ROUGE of generated texts, by sacrebleu and rouge-score."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["sequence_scores"]

_ROUGE = ("rouge1", "rouge2", "rougeL")
_INSTALL = 'pip install "hf_noise[sequences]"'


def sequence_scores(predictions: Sequence[str], references: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Scores of generated texts against one reference each, all in [0, 100], higher is better.

    Args:
        predictions: texts [N], as generated.
        references: texts [N], what they should be.

    Returns:
        For "bleu" and "chrf" (of the corpus, sacrebleu's defaults) and "rouge1", "rouge2", "rougeL" (means of F1 over
        texts, in percent, without stemming): `{"value", "n", "signature"}`, as a record's metrics are written.
        rouge-score counts words of a to z and 0 to 9 alone, so that it is for English.

    Raises:
        ImportError: sacrebleu or rouge-score is not installed.
        TypeError: these are no sequences of texts.
        ValueError: there are none, or more of the one than of the other.

    >>> scores = sequence_scores(["the cat sat on the mat"], ["the cat sat on the mat"])
    >>> round(scores["bleu"]["value"]), round(scores["rougeL"]["value"])
    (100, 100)
    """
    predictions, references = _texts("predictions", predictions), _texts("references", references)
    if len(predictions) != len(references) or not predictions:
        raise ValueError(f"predictions and references must be as many, one at least, got {len(predictions)} and "
                         f"{len(references)}")  # fmt: skip
    try:
        from sacrebleu.metrics import BLEU, CHRF
    except ImportError as error:
        raise ImportError(f"BLEU and chrF take sacrebleu; {_INSTALL}") from error
    try:
        import rouge_score
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError as error:
        raise ImportError(f"ROUGE takes rouge-score; {_INSTALL}") from error
    n, found = len(predictions), {}
    for name, metric in (("bleu", BLEU()), ("chrf", CHRF())):
        score = metric.corpus_score(predictions, [references])
        found[name] = {"value": float(score.score), "n": n, "signature": str(metric.get_signature())}
    scorer = RougeScorer(list(_ROUGE), use_stemmer=False)
    scores = [scorer.score(reference, text) for text, reference in zip(predictions, references)]
    signature = f"rouge-score {getattr(rouge_score, '__version__', '0.1')}, F1, no stemming"
    for name in _ROUGE:
        mean = 100 * sum(score[name].fmeasure for score in scores) / n
        found[name] = {"value": mean, "n": n, "signature": signature}
    return found


def _texts(name: str, values: Any) -> list[str]:
    if isinstance(values, str | bytes) or not isinstance(values, Sequence):
        raise TypeError(f"{name} must be a list of texts, got {values!r:.80}")
    for i, value in enumerate(values):
        if not isinstance(value, str):
            raise TypeError(f"{name}[{i}] must be a text, got {value!r:.80}")
    return list(values)
