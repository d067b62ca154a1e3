"""The fused head inside a model's own forward pass: the same losses and gradients, wherever the model is wrapped."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import LlamaConfig, LlamaForCausalLM

from hf_noise.losses.nll import HAS_FUSED, shift_targets
from hf_noise.trainers.fused import FusedHead

pytestmark = pytest.mark.skipif(not HAS_FUSED, reason="this torch has no fused linear cross-entropy")

VOCABULARY = 256


class LargestTensor(TorchDispatchMode):
    """Notes the largest floating-point tensor that any operation inside the block puts out."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        self.elements = max([self.elements, *(leaf.numel() for leaf in tensors if leaf.is_floating_point())])
        return result


def llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=VOCABULARY, **shape, bos_token_id=0, eos_token_id=0))


def step(trainer, rows):
    """Loss and gradients of a training batch, and the largest tensor on the way."""
    batch = trainer.data_collator(rows)
    with LargestTensor() as watch, trainer.compute_loss_context_manager():
        loss = trainer.compute_loss(trainer.model.train(), batch)
        loss.backward()
    return loss.detach(), [p.grad for p in trainer.model.parameters()], watch.elements


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@pytest.mark.parametrize("settings", [{}, {"loss": "corrected"}, {"bf16": True}], ids=str)
def test_the_loss_is_that_through_logits_without_them(make_trainer, tiny_gpt2, random_rows, noise, kind, settings):
    rows, found = random_rows(4, (16, 9)), []
    for fused in (True, False):
        model = tiny_gpt2(seed=1, vocab_size=VOCABULARY) if kind == "gpt2" else llama()
        found.append(step(make_trainer(rows, model=model, noise=noise, fused_loss=fused, **settings), rows))
    (loss, gradients, most), (plain, expected, logits) = found
    rounding = {"rtol": 0.02, "atol": 0.02} if "bf16" in settings else {"rtol": 1e-5, "atol": 1e-6}
    torch.testing.assert_close(loss, plain, **rounding)
    torch.testing.assert_close(gradients, expected, **rounding)
    assert most < logits == 4 * 16 * VOCABULARY


def test_training_and_evaluation_are_those_without_it(make_trainer, random_rows, noise):
    rows, found = random_rows(8), []
    for fused in (True, False):
        trainer = make_trainer(rows, eval_rows=rows, noise=noise, fused_loss=fused, learning_rate=1e-2, seed=3)
        trainer.train()
        found.append(trainer.evaluate()["eval_nll"])
    assert found[0] == pytest.approx(found[1], rel=1e-5)


def test_for_others_the_model_is_what_it_was(tiny_gpt2):
    model, untouched = tiny_gpt2(), tiny_gpt2()
    head, ids = FusedHead(model), torch.arange(12).view(2, 6)
    targets = shift_targets(ids)
    with head.scoring(targets):
        assert model(input_ids=ids).logits.shape == (2, 6, 1)
    assert "forward" not in vars(model)
    torch.testing.assert_close(model(input_ids=ids).logits, untouched(input_ids=ids).logits)
    with pytest.raises(RuntimeError, match="without calling its head: use fused_loss=False"):
        head.nll_of(untouched(input_ids=ids))
    with pytest.raises(ValueError, match="names no head"):
        FusedHead(untouched.transformer)


def test_holds_in_an_adapter_and_trains_it_alone(make_trainer, tiny_gpt2, random_rows, noise):
    peft = pytest.importorskip("peft")
    rows, losses = random_rows(4), []
    for fused in (True, False):
        torch.manual_seed(0)
        model = peft.get_peft_model(tiny_gpt2(), peft.LoraConfig(target_modules=["c_attn"], fan_in_fan_out=True))
        loss, gradients, _ = step(make_trainer(rows, model=model, noise=noise, fused_loss=fused), rows)
        losses.append(loss)
    torch.testing.assert_close(*losses, rtol=1e-5, atol=1e-6)
