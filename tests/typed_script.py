"""A user's script, which is read by a type checker and never run: what the public names are is known, though lazy."""

from typing import Any

import numpy as np

import hf_noise
from hf_noise import LabelFlips, UniformTokens
from hf_noise.audit import choose_estimate
from hf_noise.noise import Noise, plan_named
from hf_noise.objectives import NLL


def of_tokens(ids: np.ndarray) -> float:
    noise: UniformTokens = hf_noise.UniformTokens(ratio=0.5, vocab_size=100)
    again: Noise = hf_noise.noise_from_dict(noise.to_dict())
    noisy, is_noisy = noise(ids, sample=np.arange(len(ids)))
    return 1 - noise.error_rate - again.ratio


def of_labels(dataset: Any, probabilities: np.ndarray) -> list[int]:
    noise = LabelFlips.symmetric(error_rate=0.1, num_classes=4, seed=1)
    steps: int = plan_named("steps").plan(noise.ratio, steps=10, batch_size=4).steps
    audit: hf_noise.LabelAudit = hf_noise.audit_labels(dataset, column="label", probabilities=probabilities)
    worst: np.ndarray = audit.p_wrong.argsort()[-steps:]
    return [int(row) for row in worst if audit.error_rate.low > noise.transition[0, 1]]


def of_objectives() -> str:
    known: hf_noise.NLL = NLL()
    return known.name + hf_noise.Corrected(error_rate=0.1).sentence


def wrong(labels: np.ndarray) -> None:
    UniformTokens(ratio="0.5", vocab_size=100)  # type: ignore[arg-type]
    UniformTokens(ratio=0.5)  # type: ignore[call-arg]
    hf_noise.LabelFlips.symmetric(0.1, num_classes="4")  # type: ignore[arg-type]
    hf_noise.audit_labels(labels, colum="label")  # type: ignore[call-arg]
    choose_estimate().error_rate + "0.1"  # type: ignore[call-arg,operator]
