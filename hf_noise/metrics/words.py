"""What every metric of a record is called: in a sentence, at the head of a column, on which split, in which unit.

Cards, tables and figures ask here. Nothing is computed and nothing heavy imported, so that they may. A new metric is
one line of `METRICS`, or of `FEATURE_METRICS` if its name depends on the features that it is made of.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["FEATURE_METRICS", "METRICS", "FeatureMetric", "Metric", "name_of", "split_of"]

_SHARE = "share"


@dataclass(frozen=True)
class Metric:
    """A metric of a `RunRecord`.

    Attributes:
        key: in `RunRecord.metrics`.
        name: as a card says it, in full.
        label: as a table or an axis says it, short.
        split: of the data that it is measured on, "train", "validation" or "test"; None of generated images.
        unit: "nats", "nats per token", "images" of a batch, "share" for what lies in [0, 1] and is shown in percent, ""
            for none.
        better: "lower" or "higher" where one is, "" where it tells and does not judge.
    """

    key: str
    name: str
    label: str
    split: str | None
    unit: str = ""
    better: Literal["lower", "higher", ""] = ""

    @property
    def heading(self) -> str:
        """The head of its column: with the percent sign where a share is shown in percent."""
        return f"{self.label}, %" if self.unit == _SHARE else self.label


@dataclass(frozen=True)
class FeatureMetric:
    """A metric of images that is made of features: of Inception it has a name of its own, of others it says of what.

    Attributes:
        keys: in `RunRecord.metrics`, of Inception's features and of any other.
        of_inception: its name there.
        of_other: its name otherwise; {features} or {classes} stand for what it is made of.
        better: as of a `Metric`.
    """

    keys: tuple[str, str]
    of_inception: str
    of_other: str
    better: Literal["lower", "higher"]


_NATS, _TOKENS = "nats", "nats per token"
_ALL_LEVELS = "on noised test images, clean labels, all noise levels of training"

#: By key, in the order of a card. A metric that is not here is shown under its key, and after these.
METRICS: Mapping[str, Metric] = {metric.key: metric for metric in (
    Metric("validation_nll", "NLL, clean validation targets", "validation NLL, clean", "validation", _TOKENS, "lower"),
    Metric("validation_perplexity", "perplexity, clean validation targets", "perplexity", "validation", "", "lower"),
    Metric("train_nll_noisy", "NLL, training targets as trained on (noisy)", "train NLL, noisy", "train", _TOKENS),
    Metric("train_nll_clean", "NLL, training targets left clean", "its clean targets", "train", _TOKENS, "lower"),
    Metric("train_nll_corrupted", "NLL, training targets replaced", "its corrupted targets", "train", _TOKENS),
    Metric("validation_nll_posthoc", "NLL, clean validation targets, corrected afterwards (e known)",
           "plain, corrected afterwards", "validation", _TOKENS, "lower"),
    Metric("validation_nll_posthoc_estimated", "NLL, clean validation targets, corrected afterwards (e estimated)",
           "the same, e estimated", "validation", _TOKENS, "lower"),
    Metric("noisy_validation_accuracy", "top-1 accuracy, validation targets with the noise of training",
           "noisy validation accuracy", "validation", _SHARE, "higher"),
    Metric("noisy_validation_nll", "NLL, validation targets with the noise of training", "validation NLL, noisy",
           "validation", _TOKENS, "lower"),
    Metric("nll_clean_targets", "NLL, clean targets of the rows that were measured", "NLL, clean targets", "test",
           _TOKENS, "lower"),
    Metric("nll_corrupted_targets", "NLL, corrupted targets of the rows that were measured", "NLL, corrupted targets",
           "test", _TOKENS),
    Metric("macro_batch_mean", "mean loss of the largest macro-batches", "mean of batches", "train", _TOKENS),
    Metric("macro_batch_std", "standard deviation of the loss between the largest macro-batches",
           "spread of macro-batches", "train", _TOKENS),
    Metric("row_std", "standard deviation of the loss between rows", "spread of rows", "train", _TOKENS),
    Metric("loss_exponent", "exponent of the spread in the size of a macro-batch", "exponent", "train"),
    Metric("gradient_snr", "signal to noise of gradients, clean sum over corrupt sum", "SNR of gradients", "train"),
    Metric("gradient_noise_scale", "gradient noise scale tr(Sigma) / |G|^2, labels as trained on", "noise scale",
           "train", "images"),
    Metric("gradient_noise_scale_low", "lower end of that noise scale (95 %)", "noise scale, at least", "train",
           "images"),
    Metric("noise_nll", "NLL, held-out documents of noise", "NLL on noise", "validation", _TOKENS),
    Metric("row_auroc", "AUROC of finding the rows of noise among training rows", "AUROC, rows of noise", "train", "",
           "higher"),
    Metric("kept_share", "share of the training rows that were trained on", "kept", "train"),
    Metric("dropped_share", "share of the training targets that the loss left out", "left out", "train"),
    Metric("learned_alpha", "alpha by the likelihood of training rows under the model", "alpha from rows", "train"),
    Metric("audited_error_rate", "share of training rows that an audit holds for another's", "e found", "train"),
    Metric("learned_error_rate", "e as learned with the model", "e learned", "train"),
    Metric("error_rate_by_ranks", "e as estimated from the ranks of the targets", "e by ranks", "train"),
    Metric("audit_auroc", "AUROC of the posterior that a target is clean", "audit AUROC", "train", "", "higher"),
    Metric("audit_ece", "calibration error (ECE) of that posterior", "audit ECE", "train", "", "lower"),
    Metric("audit_brier", "Brier score of that posterior", "audit Brier", "train", "", "lower"),
    Metric("test_accuracy", "accuracy, clean test labels", "test accuracy", "test", _SHARE, "higher"),
    Metric("test_nll", "NLL, clean test labels", "test NLL", "test", _NATS, "lower"),
    Metric("test_ece", "calibration error (ECE), clean test labels", "ECE", "test", "", "lower"),
    Metric("successor_rate", "share of predictions equal to (y + 1) mod C", "predicts y + 1", "test", _SHARE, "lower"),
    Metric("marginal_kl", "KL of the predicted from the true marginal of labels", "KL of marginal", "test", _NATS,
           "lower"),
    Metric("marginal_tv", "total variation of these marginals", "TV", "test", "", "lower"),
    Metric("train_accuracy_trained_labels", "accuracy on training rows, labels as trained on", "train: as trained",
           "train", _SHARE),
    Metric("train_accuracy_clean_labels", "accuracy on training rows, clean labels", "train: clean labels", "train",
           _SHARE, "higher"),
    Metric("label_consistency", "share of generated images that a judge gives the class they were asked for",
           "consistency", None, _SHARE, "higher"),
    Metric("judge_test_accuracy", "accuracy of that judge, clean real test images", "judge on real test images", "test",
           _SHARE, "higher"),
    Metric("test_loss", "EDM loss on test images with clean labels, averaged weights", "loss on test images", "test",
           "", "lower"),
    Metric("test_loss_raw", "EDM loss on test images with clean labels, raw weights", "the same, raw weights", "test",
           "", "lower"),
    Metric("accuracy", f"accuracy {_ALL_LEVELS}", "accuracy", "test", _SHARE, "higher"),
    Metric("nll", f"NLL {_ALL_LEVELS}", "NLL", "test", _NATS, "lower"),
    Metric("transition_mean_absolute_error", "mean absolute error of T", "T: mean error", "train", "", "lower"),
    Metric("transition_worst_row", "total variation between true and used T, worst row", "T: worst row (TV)", "train",
           "", "lower"),
    Metric("validation_accuracy", "accuracy, validation labels (of probes as wrong as those of training)",
           "validation accuracy", "validation", _SHARE, "higher"),
    Metric("validation_label_nll", "NLL, clean validation labels", "validation NLL of labels", "validation",
           _NATS, "lower"),
    Metric("gain", "accuracy over the head without a penalty of the same seed, clean test labels", "gain over plain",
           "test", "", "higher"),
    Metric("correct_area", "area predicted correctly in random planes around test rows", "correct area", "test", "",
           "higher"),
    Metric("test_target_nll", "NLL, clean test targets", "test NLL", "test", _TOKENS, "lower"),
    Metric("written_nll", "NLL, targets that the teacher wrote for test sources", "NLL of teacher's targets", "test",
           _TOKENS),
    Metric("teacher_nll", "NLL of the teacher itself, clean test targets", "teacher's NLL", "test", _TOKENS, "lower"),
    Metric("test_bleu", "BLEU, generated for a sample of test sources", "BLEU", "test", "", "higher"),
    Metric("test_chrf", "chrF, generated for a sample of test sources", "chrF", "test", "", "higher"),
    Metric("test_rouge_l", "ROUGE-L (F1), generated for a sample of test sources", "ROUGE-L", "test", "", "higher"),
    Metric("padding_share", "padding among all tokens of the batches of training", "padding", "train", _SHARE, "lower"),
    Metric("clean_cosine", "mean cosine of two clean examples' gradients", "cosine, clean", "train"),
    Metric("corrupt_cosine", "mean cosine of two corrupt examples' gradients", "cosine, corrupt", "train"),
    Metric("cross_cosine", "mean cosine of a clean and a corrupt example's gradient", "cosine, across", "train"),
    Metric("clean_norm", "length of the sum of a batch's clean gradients", "clean sum", "train"),
    Metric("corrupt_norm", "length of the sum of a batch's corrupt gradients", "corrupt sum", "train"),
    Metric("snr", "mean length of the clean over that of the corrupt sum", "SNR", "train", "", "higher"),
    Metric("example_square", "squared length of one example's gradient", "|g|^2 of an example", "train"),
    Metric("batch_square", "squared length of a batch's mean gradient", "|g|^2 of a batch", "train"),
    Metric("memorised", "share of the wrong training labels that it gives back", "memorised", "train", _SHARE, "lower"),
    Metric("error_rate", "share of units that an audit calls wrong", "wrong, audited", "train", _SHARE),
    Metric("true_error_rate", "share of units that are wrong in truth", "wrong in truth", "train", _SHARE),
    Metric("listed", "share of rows that an audit lists", "listed", "train", _SHARE),
    Metric("auroc", "AUROC of p(label is wrong)", "AUROC", "train", "", "higher"),
    Metric("average_precision", "average precision of p(label is wrong)", "AP", "train", "", "higher"),
    Metric("list_precision", "share of listed rows that are wrong", "precision of the list", "train", _SHARE, "higher"),
    Metric("list_recall", "share of wrong rows that are listed", "recall of the list", "train", _SHARE, "higher"),
    Metric("list_f1", "F1 of the list of an audit", "F1 of the list", "train", "", "higher"),
    Metric("transition_l1", "L1 error per row of the audited T", "L1 per row of T", "train", "", "lower"),
    *(
        Metric(f"{key}_{way}", f"{name}, {told}", f"{name}, {way}", split, _SHARE, "higher")
        for key, name, split in (("test_accuracy", "accuracy, clean test labels", "test"),
                                 ("given_label_accuracy", "accuracy, held-out labels as given", "validation"))
        for way, told in (("given", "trained on labels as given"), ("drop", "trained without listed rows"),
                          ("relabel", "trained on suggested labels"), ("corrected", "trained through the audited T"))
    ),
    *(
        Metric(f"{key}_{score}", f"{name} of {told}, of wrong tokens", f"{short}, {told}", "train", "", "higher")
        for key, name, short in (("auroc", "AUROC", "AUROC"), ("average_precision", "average precision", "AP"))
        for score, told in (("p_wrong", "p(wrong)"), ("loss", "the loss"), ("error_norm", "the error norm"))
    ),
)}  # fmt: skip

#: By the name of their function; see `hf_noise.metrics.metric_name`.
FEATURE_METRICS: Mapping[str, FeatureMetric] = {
    "frechet": FeatureMetric(("fid", "frechet_distance"), "FID", "Frechet distance in {features}", "lower"),
    "classwise_frechet": FeatureMetric(
        ("cw_fid", "cw_frechet_distance"), "CW-FID", "class-wise Frechet distance in {features}", "lower"
    ),
    "inception_score": FeatureMetric(
        ("inception_score", "judge_score"), "IS", "score exp(KL) of {classes}", "higher"
    ),
    "density": FeatureMetric(
        ("density", "density"), "density in Inception features", "density in {features}", "higher"
    ),
    "coverage": FeatureMetric(
        ("coverage", "coverage"), "coverage in Inception features", "coverage in {features}", "higher"
    ),
    "classwise_density": FeatureMetric(
        ("cw_density", "cw_density"), "CW-density in Inception features", "class-wise density in {features}", "higher"
    ),
    "classwise_coverage": FeatureMetric(
        ("cw_coverage", "cw_coverage"), "CW-coverage in Inception features", "class-wise coverage in {features}",
        "higher",
    ),
}  # fmt: skip

# Of a key that is not in METRICS, such as "accuracy_sigma0.5", by its beginning. All others are of the training data,
# which distances of generated images are measured from, too.
_BEGINNINGS = {
    "validation": "validation", "noisy_validation": "validation", "noise": "validation", "given_label": "validation",
    "test": "test", "successor": "test", "marginal": "test", "judge_test": "test",
    "written": "test", "teacher": "test", "accuracy": "test", "nll": "test", "gain": "test", "correct_area": "test",
    "label_consistency": None,
}  # fmt: skip


def name_of(key: str, metric: Mapping[str, Any] | None = None) -> str:
    """The full name of a metric: ours, else the one that its entry in the record brings, else its key in words."""
    if key in METRICS:
        return METRICS[key].name
    return (metric or {}).get("name", key.replace("_", " "))


def split_of(key: str) -> str | None:
    """The split that a metric is measured on, None of generated images."""
    if key in METRICS:
        return METRICS[key].split
    return next((split for beginning, split in _BEGINNINGS.items() if key.startswith(beginning)), "train")
