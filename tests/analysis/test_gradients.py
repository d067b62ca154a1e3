"""Cosines and sums of gradients, against autograd in float64, one example after the other."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    ResNetConfig,
    ResNetForImageClassification,
)

from hf_noise.analysis import gram_head, gram_pieces
from hf_noise.analysis.gradients import coherence

V, T, B = 61, 9, 5
NOISY = torch.tensor([False, True, False, True, False])
TIED, INNER = "transformer.wte.weight", ["transformer.h.0.mlp.c_fc.weight", "transformer.ln_f.bias"]


def language_model(is_tied: bool = True, dtype: torch.dtype = torch.float64) -> GPT2LMHeadModel:
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=V, n_positions=T, n_layer=2, n_embd=8, n_head=2, tie_word_embeddings=is_tied,
                        bos_token_id=0, eos_token_id=0)  # fmt: skip
    return GPT2LMHeadModel(config).to(dtype)


def text_batch(seed: int = 0, size: int = B, noisy: torch.Tensor = NOISY) -> dict[str, torch.Tensor]:
    """Rows of Zipf's tokens, some targets of which do not count."""
    draw = np.random.default_rng(seed)
    tokens = torch.from_numpy(np.minimum(draw.zipf(1.5, (size, T)), V) - 1)
    labels = torch.where(noisy[:, None], torch.from_numpy(draw.integers(0, V, (size, T))), tokens)
    labels[0, 3:5] = -100
    return {"input_ids": tokens, "labels": labels, "is_noisy": noisy, "sample_id": torch.arange(size)}


def by_autograd(model: nn.Module, names: list[str], batch: dict, is_token: bool = False):
    """Gradients of clean and of corrupt rows, [n, P] each: a backward pass for each."""
    model.eval()
    parameters = [dict(model.named_parameters(remove_duplicate=False))[name] for name in names]
    found: tuple[list, list] = ([], [])
    for i in range(len(batch["labels"])):
        logits = model(input_ids=batch["input_ids"][i : i + 1]).logits[0]
        label, noisy = batch["labels"][i], batch["is_noisy"][i]
        if label.ndim:
            logits, label, noisy = logits[:-1], label[1:], noisy[1:] if is_token else noisy
        else:
            logits, label = logits[None], label[None]
        nll = nn.functional.cross_entropy(logits, label, reduction="none", ignore_index=-100)
        nll = nll / (label != -100).sum()
        parts = [nll[~noisy & (label != -100)], nll[noisy & (label != -100)]] if is_token else None
        for kind, loss in enumerate(parts) if is_token else [(int(noisy), nll)]:
            if len(loss):
                made = torch.autograd.grad(loss.sum(), parameters, retain_graph=True, materialize_grads=True,
                                           allow_unused=True)  # fmt: skip
                found[kind].append(torch.cat([one.reshape(-1) for one in made]))
    return [torch.stack(one).numpy() for one in found]


def check(found, clean: np.ndarray, corrupt: np.ndarray, tolerance: float = 1e-9) -> None:
    """One batch, against its gradients."""

    def unit(rows: np.ndarray) -> np.ndarray:
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def pairs(rows: np.ndarray) -> np.ndarray:
        return (unit(rows) @ unit(rows).T)[np.triu_indices(len(rows), 1)]

    expected = {
        "clean_cosine": pairs(clean).mean(), "corrupt_cosine": pairs(corrupt).mean(),
        "cross_cosine": (unit(clean) @ unit(corrupt).T).mean(), "clean_norm": np.linalg.norm(clean.sum(0)),
        "corrupt_norm": np.linalg.norm(corrupt.sum(0)),
        "snr": np.linalg.norm(clean.sum(0)) / np.linalg.norm(corrupt.sum(0)),
        "batch_square": (np.concatenate([clean, corrupt]).sum(0) ** 2).sum() / found.batch_size[0] ** 2,
    }  # fmt: skip
    for name, value in expected.items():
        assert getattr(found, name) == pytest.approx([value], rel=tolerance, abs=tolerance), name
        assert found.estimates[name].value == pytest.approx(value, rel=tolerance, abs=tolerance), name
    one = found.estimates["clean_cosine"]
    assert (one.n, one.low) == (len(pairs(clean)), None)
    assert (one.smallest, one.largest) == pytest.approx((pairs(clean).min(), pairs(clean).max()), abs=tolerance)


@pytest.mark.parametrize("method", ["auto", "vmap", "loop"])
@pytest.mark.parametrize(
    ("is_tied", "names"),
    [(True, [TIED]), (True, ["lm_head.weight"]), (False, [TIED]), (False, ["lm_head.weight"]),
     (False, [TIED, "lm_head.weight"]), (True, INNER), (True, [TIED, *INNER])],
)  # fmt: skip
def test_of_any_parameters_as_autograd_has_them(is_tied, names, method):
    model, batch = language_model(is_tied), text_batch()
    found = coherence(model, [batch], parameters=names, method=method)
    clean, corrupt = by_autograd(model, names, batch)
    check(found, clean, corrupt)
    assert found.example_square[0] == pytest.approx((np.concatenate([clean, corrupt]) ** 2).sum() / B)
    assert found.method == ("blocks" if method == "auto" and names[-1] != INNER[-1] else method.replace("auto", "vmap"))
    assert (found.batch_size.tolist(), found.corrupt.tolist(), len(found)) == ([B], [2], 1)


@pytest.mark.parametrize("method", ["auto", "vmap"])
def test_corruption_of_tokens_splits_each_example(method):
    model, batch = language_model(), text_batch()
    noisy = torch.rand(B, T, generator=torch.Generator().manual_seed(1)) < 0.4
    noisy[2] = False  # of which there is no corrupt part
    found = coherence(model, [batch | {"is_noisy": noisy}], unit="token", method=method)
    clean, corrupt = by_autograd(model, [TIED], batch | {"is_noisy": noisy}, is_token=True)
    check(found, clean, corrupt)
    assert found.corrupt.tolist() == [4]
    whole = np.concatenate(by_autograd(model, [TIED], batch))
    assert found.example_square[0] == pytest.approx((whole**2).sum() / B), "an example is one, whatever its parts"


def test_the_sum_of_all_rows_is_the_gradient_of_the_batch():
    model, batch = language_model().eval(), text_batch()
    batch["labels"][0, 3:5] = 1  # as many targets each, so that the batch's mean is the mean of means
    found = coherence(model, [batch])
    mean = torch.autograd.grad(model(input_ids=batch["input_ids"], labels=batch["labels"]).loss, model.lm_head.weight)
    assert found.batch_square[0] == pytest.approx(float(mean[0].square().sum()))


@pytest.mark.parametrize("method", ["auto", "loop"])
def test_of_a_classifier(method):
    torch.manual_seed(0)
    config = BertConfig(vocab_size=V, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
                        max_position_embeddings=T, num_labels=3)  # fmt: skip
    model = BertForSequenceClassification(config).double()
    batch = text_batch() | {"labels": torch.tensor([0, 2, 0, 1, 1])}
    names = ["classifier.weight", "bert.embeddings.word_embeddings.weight"]
    found = coherence(model, [batch], parameters=names, method=method)
    check(found, *by_autograd(model, names, batch))
    every = coherence(model, [batch], method=method)
    assert set(every.parameters) == {name for name, _ in model.named_parameters()}


def test_of_a_masked_language_model_targets_stand_where_they_are():
    torch.manual_seed(0)
    config = BertConfig(vocab_size=V, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
                        max_position_embeddings=T)  # fmt: skip
    model, batch = BertForMaskedLM(config).double(), text_batch()
    one, other = (coherence(model, [batch], method=method) for method in ("blocks", "loop"))
    assert one.snr == pytest.approx(other.snr) and one.parameters == ("bert.embeddings.word_embeddings.weight",)
    assert coherence(model, [batch], is_causal=True).snr != pytest.approx(one.snr)


@pytest.mark.parametrize("method", ["blocks", "vmap", "loop"])
def test_pieces_and_tiles_change_nothing(method, monkeypatch):
    model, batch = language_model(), text_batch()
    names = [TIED] if method == "blocks" else [TIED, *INNER]
    whole = coherence(model, [batch], parameters=names, method=method)
    monkeypatch.setattr(gram_pieces, "PIECE", 7)
    monkeypatch.setattr(gram_head, "_MOST", 16)
    monkeypatch.setattr("hf_noise.analysis.gradients.check_count", lambda name, value, *_: 0)  # of memory
    small = coherence(model, [batch], parameters=names, method=method, memory_mib=1)
    for name in ("clean_cosine", "cross_cosine", "snr", "batch_square", "example_square"):
        assert getattr(small, name) == pytest.approx(getattr(whole, name), rel=1e-10), name


def test_float32_is_near_float64():
    found, exact = (coherence(language_model(dtype=dtype), [text_batch()]) for dtype in (torch.float32, torch.float64))
    assert found.snr == pytest.approx(exact.snr, rel=1e-5) and found.cross_cosine == pytest.approx(
        exact.cross_cosine, abs=1e-6
    )


def test_hand_made_gradients():
    """Logits x W^T of zero weights, two classes: the gradient of example i is +-x_i / 2 in both rows of W."""
    model = nn.Linear(2, 2, bias=False).double()
    nn.init.zeros_(model.weight)
    rows = torch.tensor([[2.0, 0], [4, 0], [0, 2], [0, -2]], dtype=torch.float64)
    batch = {"input": rows, "labels": torch.zeros(4, dtype=torch.int64), "is_noisy": torch.arange(4) > 1}
    found = coherence(model, [batch, batch | {"is_noisy": torch.arange(4) == 3}], one_sided="zero")
    lengths = np.sqrt(2) * np.array([1, 2, 1, 1])  # |x| / 2 in each of two rows
    assert found.clean_cosine == pytest.approx([1, 1 / 3]) and found.cross_cosine == pytest.approx([0, -1 / 3])
    assert found.corrupt_cosine == pytest.approx([-1, np.nan], nan_ok=True)
    assert found.clean_norm == pytest.approx([3 * np.sqrt(2), np.sqrt(20)], rel=1e-12)
    assert found.corrupt_norm == pytest.approx([0, np.sqrt(2)], abs=1e-12) and found.snr[0] > 1e9
    assert found.example_square == pytest.approx([(lengths**2).mean()] * 2)
    assert found.batch_square == pytest.approx([18 / 16] * 2)
    # Over batches: all pairs alike, and norms before their ratio.
    told = found.estimates
    assert told["clean_cosine"].value == pytest.approx((1 + 1) / 4) and told["clean_cosine"].n == 4
    assert told["snr"].value == pytest.approx((3 * np.sqrt(2) + np.sqrt(20)) / np.sqrt(2))
    assert told["example_square"].low is None, "all batches say the same"


def test_a_batch_of_one_side_counts_as_zero_where_that_is_asked():
    model = language_model()
    batches = [text_batch(), text_batch(1, noisy=torch.zeros(B, dtype=torch.bool))]
    found = coherence(model, iter(batches), one_sided="zero")
    assert found.corrupt_norm[1] == 0 and found.snr[1] == np.inf and np.isnan(found.corrupt_cosine[1])
    one = found.estimates["snr"]
    assert one.value == pytest.approx(found.clean_norm.sum() / found.corrupt_norm.sum())
    assert one.largest == pytest.approx(found.snr[0]) and found.estimates["corrupt_cosine"].n == 1
    assert "snr" not in coherence(model, batches[1:], one_sided="zero").estimates


def test_intervals_hold_the_value_as_often_as_they_say():
    """Means of norms and ratios of sums, of batches whose truth is known."""
    from hf_noise.analysis.gradients import _ratio

    draw = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        over, under = 3 + draw.normal(size=20), 2 + 0.3 * draw.normal(size=20)
        one = _ratio(over, under, 20, over, 0.9)
        held += one.low < 1.5 < one.high
    assert 0.85 < held / 400 < 0.94


def test_the_model_is_left_as_it_was():
    model = language_model().train()
    model.transformer.ln_f.bias.requires_grad_(False)
    model.transformer.h[0].eval()
    before = ([(one.training) for one in model.modules()], [one.requires_grad for one in model.parameters()])
    values = [one.clone() for one in model.parameters()]
    coherence(model, [text_batch()], parameters=INNER)
    with pytest.raises(ValueError, match="no corrupt"):
        coherence(model, [text_batch(noisy=torch.zeros(B, dtype=torch.bool))])
    assert before == ([(one.training) for one in model.modules()], [one.requires_grad for one in model.parameters()])
    assert model.config.use_cache is True and all(one.grad is None for one in model.parameters())
    assert all(map(torch.equal, values, model.parameters()))


def test_dropout_is_off():
    model = language_model().train()
    assert coherence(model, [text_batch()]).snr == pytest.approx(coherence(model, [text_batch()]).snr, rel=1e-12)


class Net(nn.Module):
    """A classifier whose forward does what a test says."""

    def __init__(self, what) -> None:
        super().__init__()
        self.layer, self.what = nn.Linear(3, 2), what
        self.register_buffer("seen", torch.zeros(3))

    def forward(self, x):
        return self.layer(self.what(self, x))


def adds(net, x):
    net.seen += x.mean(0).detach()
    return x - net.seen


def asks(net, x):
    return x if x.sum().item() > 0 else -x


def drops(net, x):
    return nn.functional.dropout(x, 0.5, training=True)


def replaces(net, x):
    net.seen = net.seen + x.mean(0).detach()
    return x


def asks_its_own_generator(net, x):
    return x + torch.randn(x.shape, generator=OWN, dtype=x.dtype)


OWN = torch.Generator().manual_seed(0)
NET_BATCH = {"x": torch.randn(4, 3), "labels": torch.tensor([0, 1, 0, 1]), "is_noisy": torch.arange(4) > 1}


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (adds, r"the forward of Net is not functional: torch.Tensor.(add_|__iadd__) cannot .*changes seen in place"),
        (asks, r"the forward of Net is not functional: torch.Tensor.item cannot .*method='loop' takes examples"),
        (drops, r"the forward of Net is not functional: torch.*dropout cannot .*draws random numbers"),
        (replaces, r"the forward of Net is not functional: .*puts another tensor in the place of seen"),
        (asks_its_own_generator, r"the forward of Net is not functional: .*says another thing of the same example"),
    ],
)
@pytest.mark.parametrize("method", ["vmap", "auto", "loop"])
def test_a_forward_that_is_not_functional_is_refused_and_the_operation_named(what, message, method):
    if what is asks and method != "vmap":
        found, other = coherence(Net(what), [NET_BATCH], method=method), coherence(Net(lambda _, x: x), [NET_BATCH])
        assert np.isfinite(found.snr).all() and (found.method, other.method) == ("loop", "vmap")
        return
    net = Net(what)
    seen = net.seen
    with pytest.raises(ValueError, match=message):
        coherence(net, [NET_BATCH], method=method)
    assert net.seen is seen


@pytest.mark.parametrize("what", [adds, drops, replaces, asks_its_own_generator])
def test_a_language_model_that_is_not_functional_is_refused_too(what):
    model = language_model()
    model.register_buffer("seen", torch.zeros(T, 8, dtype=torch.float64))
    model.transformer.ln_f.register_forward_hook(lambda _, given, made: what(model, made))
    with pytest.raises(ValueError, match="GPT2LMHeadModel is not functional"):
        coherence(model, [text_batch()], method="blocks")


def test_norms_over_the_batch_are_refused():
    net = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2, track_running_stats=False))
    batch = {"input": NET_BATCH["x"]} | {name: NET_BATCH[name] for name in ("labels", "is_noisy")}
    with pytest.raises(ValueError, match="1 is BatchNorm1d without running statistics.*track_running_stats=True"):
        coherence(net, [batch])


def test_padded_rows_of_a_classifier():
    """Their mask asks whether there is any padding, which cannot be batched."""
    config = BertConfig(vocab_size=V, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
                        max_position_embeddings=T, num_labels=3)  # fmt: skip
    mask = torch.ones(B, T, dtype=torch.int64)
    mask[1, 4:] = 0
    batch = text_batch() | {"labels": torch.tensor([0, 2, 0, 1, 1]), "attention_mask": mask}
    found = coherence(BertForSequenceClassification(config), [batch])
    assert found.method == "loop" and np.isfinite(found.snr).all()


def test_of_a_model_of_images():
    config = ResNetConfig(embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1], num_labels=3)
    batch = {"pixel_values": torch.randn(4, 3, 16, 16), "labels": torch.arange(4) % 3, "is_noisy": torch.arange(4) > 1}
    one, other = (coherence(ResNetForImageClassification(config).train(), [batch], method=way, parameters=name)
                  for way, name in (("vmap", "classifier.1.weight"), ("loop", ["classifier.1.weight"])))  # fmt: skip
    assert one.parameters == other.parameters and np.isfinite(one.snr).all()


def test_logits_that_are_more_than_the_head_are_not_taken_for_it():
    class Capped(GPT2LMHeadModel):
        def forward(self, **inputs):
            told = super().forward(**inputs)
            told.logits = 0.1 * torch.tanh(10 * told.logits)
            return told

    model = Capped(language_model().config).double()
    found = coherence(model, [text_batch()])
    assert found.method == "vmap"
    check(found, *by_autograd(model, [TIED], text_batch()))
    with pytest.raises(ValueError, match="method='blocks' does not fit Capped: its logits are not those of its head"):
        coherence(model, [text_batch()], method="blocks")


def without(name):
    return {key: value for key, value in text_batch().items() if key != name}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"parameters": "transformer.wte.wieght"}, "none called 'transformer.wte.wieght' .*near it are transformer.wt"),
        ({"parameters": []}, "parameters is empty"), ({"unit": "row"}, "unit must be one of example, token, got 'row'"),
        ({"one_sided": "yes"}, "one_sided must be one of refuse, zero"), ({"method": "fast"}, "method must be one of"),
        ({"confidence": 1.0}, r"confidence must lie in \(0, 1\)"), ({"memory_mib": 0}, "memory_mib must lie in"),
        ({"parameters": INNER, "method": "blocks"}, "method='blocks' is for the weights of embedding and output layer"),
        ({"batches": []}, "batches is empty"), ({"batches": [without("labels")]}, "no column 'labels', the targets"),
        ({"batches": [text_batch(), without("is_noisy")]}, "batch 1 has no column 'is_noisy'"),
        ({"batches": [without("input_ids")]}, "no column of a batch is an input of GPT2LMHeadModel"),
        ({"batches": [text_batch(noisy=~torch.zeros(B, dtype=torch.bool))]}, "batch 0 has no clean example: there is "
         "nothing to compare; .*one_sided='zero'"),
        ({"batches": [text_batch() | {"labels": torch.full((B, T), -100)}]}, "example 0 of batch 0 has no target"),
        ({"batches": [text_batch() | {"labels": torch.full((B, T), -1)}]}, "must be >= 0, or -100 .* got -1"),
        ({"batches": [text_batch() | {"labels": torch.full((B, T), V)}]}, f"labels must be below {V}"),
        ({"batches": [text_batch() | {"labels": torch.zeros(B, dtype=torch.int64)}]}, r"logits must be \[B, classes\]"),
        ({"batches": [text_batch() | {"labels": torch.zeros(B, T + 1, dtype=torch.int64)}]}, "10 positions, logits 9"),
        ({"batches": [text_batch() | {"labels": torch.zeros(B, T)}]}, "labels of batch 0 must be integers"),
        ({"batches": [text_batch() | {"is_noisy": torch.zeros(B, T, dtype=torch.bool)}]}, "go with unit='token'"),
        ({"batches": [text_batch() | {"is_noisy": NOISY.long()}]}, r"is_noisy of batch 0 must be bool \[5\]"),
        ({"batches": [text_batch() | {"labels": torch.zeros(B, dtype=torch.int64)}], "unit": "token"},
         r"unit='token' needs labels \[B, T\]"),
        ({"batches": [text_batch() | {"input_ids": torch.full((B, T), V)}]}, "cannot be run on input_ids"),
        ({"batches": [text_batch() | {"input_ids": torch.zeros(B - 1, T, dtype=torch.int64)}]}, "as many rows as"),
    ],
)  # fmt: skip
def test_bad_calls_are_refused(options, message):
    options = {"batches": [text_batch()]} | options
    for way in ({}, {"method": "vmap"}):
        with pytest.raises(ValueError, match=message):
            coherence(language_model(), **way | options)


def test_other_kinds_are_refused():
    for arguments, message in (
        (("gpt2", [text_batch()]), "model must be a torch module, got str"),
        ((language_model(), text_batch()), "batches must be an iterable of mappings"),
        ((language_model(), [[1, 2]]), "batch 0 must be a mapping"),
    ):
        with pytest.raises(TypeError, match=message):
            coherence(*arguments)
    with pytest.raises(TypeError, match="parameters must be names"):
        coherence(language_model(), [text_batch()], parameters=[1])
    with pytest.raises(ValueError, match="weights must be float32 or float64, .* is torch.bfloat16"):
        coherence(language_model(dtype=torch.bfloat16), [text_batch()])


def test_gradients_without_a_value_are_refused():
    model = language_model()
    with pytest.raises(ValueError, match="gradients of transformer.wpe.weight are all zero"):
        short = {name: value[:, :2] if value.ndim == 2 else value for name, value in text_batch().items()}
        model.transformer.wpe.weight.data.zero_()
        model.lm_head.weight.data.zero_()
        coherence(model, [short], parameters="transformer.wpe.weight")
    broken = language_model()
    broken.transformer.ln_f.bias.data.fill_(float("nan"))
    for parameters in (TIED, INNER):
        with pytest.raises(ValueError, match="gradients of batch 0 are not finite"):
            coherence(broken, [text_batch()], parameters=parameters)


def test_memory_is_bounded_where_activations_are_the_largest():
    """Of a small vocabulary and a deep model: as many examples go forward together as memory allows."""
    config = GPT2Config(vocab_size=16, n_layer=8, n_embd=64, n_head=2, n_positions=128, bos_token_id=0, eos_token_id=0)
    model = GPT2LMHeadModel(config).eval()
    sizes = []
    model.transformer.wte.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
    tokens = torch.randint(16, (24, 128), generator=torch.Generator().manual_seed(0))
    batch = {"input_ids": tokens, "labels": tokens, "is_noisy": torch.arange(24) % 2 == 0}
    small = coherence(model, [batch], memory_mib=16)
    assert sum(sizes) >= 24 and max(sizes) <= 3
    sizes.clear()
    large = coherence(model, [batch], memory_mib=4096)
    assert max(sizes) >= 23 and small.snr == pytest.approx(large.snr, rel=1e-4)


@pytest.mark.parametrize("wrap", ["peft", "compile"])
def test_a_masked_model_in_a_wrapper_is_one_still(wrap):
    from hf_noise.analysis.example_rows import predicts_next

    config = BertConfig(vocab_size=V, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
                        max_position_embeddings=T)  # fmt: skip
    model = BertForMaskedLM(config)
    if wrap == "peft":
        peft = pytest.importorskip("peft")
        wrapped = peft.get_peft_model(model, peft.LoraConfig(target_modules=["query"]))
    else:
        wrapped = torch.compile(model)
    assert not predicts_next(wrapped) and predicts_next(language_model())
