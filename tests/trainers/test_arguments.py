"""What becomes of each argument of `transformers.Trainer`: honoured, or refused by name; none is taken and ignored."""

from __future__ import annotations

import dataclasses
import inspect
import math

import numpy as np
import pytest
import torch
from transformers import Trainer, TrainingArguments

from hf_noise.trainers import CausalLMTrainer, ImageClassifierTrainer
from hf_noise.trainers.arguments import REFUSED_ARGUMENTS, REFUSED_OPTIONS
from hf_noise.trainers.training_arguments import check_values

#: Done by transformers, around what our trainers do: optimiser, loop, logs, files, processes, loading of rows.
_BY_TRANSFORMERS = """
output_dir per_device_train_batch_size num_train_epochs max_steps learning_rate lr_scheduler_type lr_scheduler_kwargs
warmup_steps optim optim_args weight_decay adam_beta1 adam_beta2 adam_epsilon optim_target_modules
gradient_accumulation_steps max_grad_norm bf16 fp16 bf16_full_eval fp16_full_eval tf32 activation_checkpointing
activation_checkpointing_kwargs gradient_checkpointing gradient_checkpointing_kwargs torch_compile
torch_compile_backend torch_compile_mode use_liger_kernel liger_kernel_config use_cache neftune_noise_alpha
torch_empty_cache_steps logging_strategy logging_steps logging_first_step log_on_each_node
include_num_input_tokens_seen log_level log_level_replica disable_tqdm report_to run_name project trackio_space_id
trackio_bucket_id trackio_static_space_id eval_strategy eval_steps eval_delay per_device_eval_batch_size eval_on_start
eval_accumulation_steps include_for_metrics save_only_model save_strategy save_steps save_on_each_node
save_total_limit enable_jit_checkpoint push_to_hub hub_token hub_private_repo hub_model_id hub_strategy hub_always_push
hub_revision load_best_model_at_end metric_for_best_model greater_is_better ignore_data_skip
restore_callback_states_from_checkpoint full_determinism seed data_seed use_cpu accelerator_config parallelism_config
dataloader_drop_last dataloader_num_workers dataloader_pin_memory dataloader_persistent_workers
dataloader_prefetch_factor dataloader_multiprocessing_context dataloader_in_order
length_column_name ddp_bucket_cap_mb ddp_broadcast_buffers ddp_static_graph ddp_backend ddp_timeout fsdp fsdp_config
deepspeed debug skip_memory_metrics do_train do_eval do_predict resume_from_checkpoint local_rank
"""
TRANSFORMERS = set(_BY_TRANSFORMERS.split())

#: Honoured by our trainers' own code, see the tests named here.
HONOURED = {
    "average_tokens_across_devices": "mean_loss; test_two_processes",
    "train_sampling_strategy": "of training; test_predictions_are_in_the_order_of_the_rows_where_training_groups_them",
    "ddp_find_unused_parameters": "search_no_unused sets it only where nothing is given",
    "prediction_loss_only": "test_exact_figures_do_not_depend_on_how_predictions_are_kept",
}
#: Set by our trainers, as their docstrings say.
SET = {
    "remove_unused_columns": "for a collator of one's own; test_a_collator_is_shown_what_remove_unused_columns_has_it",
    "logging_nan_inf_filter": "off: such losses stop the run instead; test_finite",
}

OPTIONS = {
    "model": "", "args": "", "train_dataset": "", "eval_dataset": "", "processing_class": "", "callbacks": "",
    "data_collator": "test_no_collator_is_the_trainers_own, test_claims",
    "compute_metrics": "test_own_metrics_stand_beside_the_exact_ones",
    "optimizers": "test_a_scheduler_made_before_a_learned_parameter_is_refused",
    "optimizer_cls_and_kwargs": "test_an_optimizer_class_is_honoured",
}  # fmt: skip

VALUES = {
    "auto_find_batch_size": True, "batch_eval_metrics": True, "eval_do_concat_batches": False,
    "eval_use_gather_object": True, "label_names": ["target"], "label_smoothing_factor": 0.1,
}  # fmt: skip


def test_every_argument_of_transformers_is_accounted_for():
    """A new one in a later version has to be looked at, and written down here."""
    known = {*TRANSFORMERS, *HONOURED, *SET, *REFUSED_ARGUMENTS}
    assert len(known) == len(TRANSFORMERS) + len(HONOURED) + len(SET) + len(REFUSED_ARGUMENTS)
    assert {field.name for field in dataclasses.fields(TrainingArguments)} <= known
    of_trainer = set(inspect.signature(Trainer.__init__).parameters) - {"self"}
    assert of_trainer <= {*OPTIONS, *REFUSED_OPTIONS}
    assert VALUES.keys() == REFUSED_ARGUMENTS.keys()


@pytest.mark.parametrize("name", REFUSED_ARGUMENTS)
def test_arguments_that_cannot_be_honoured_are_refused_by_name(any_trainer, kind, name):
    settings = {name: VALUES[name]} | ({"eval_strategy": "no"} if name == "eval_use_gather_object" else {})
    if kind in ("classifier", "image_classifier") and name == "label_smoothing_factor":
        assert any_trainer(kind, **settings).args.label_smoothing_factor == 0.1  # part of its loss
        return
    with pytest.raises(ValueError, match=rf"cannot honour {name}=.*: .*(leave|set|rename)"):
        any_trainer(kind, **settings)


@pytest.mark.parametrize("name", sorted(set(REFUSED_OPTIONS) - {"model_init"}))
def test_functions_whose_work_is_done_here_are_refused(any_trainer, kind, name):
    with pytest.raises(ValueError, match=f"takes no {name}="):
        any_trainer(kind, **{name: lambda *args, **kwargs: 1 / 0})


@pytest.mark.parametrize(
    "cls",
    ["CausalLMTrainer", "MaskedLMTrainer", "ClassifierTrainer", "ImageClassifierTrainer", "TimeClassifierTrainer",
     "EDMTrainer"],
)  # fmt: skip
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({}, TypeError, "model must be a torch.nn.Module, got None"),
        ({"model_init": lambda: None}, ValueError, "model_init= is not taken"),
    ],
)
def test_a_model_is_needed(arguments, cls, options, error, message):
    from hf_noise import trainers

    with pytest.raises(error, match=message):
        getattr(trainers, cls)(args=arguments(), **options)


def test_no_collator_is_the_trainers_own(any_trainer, kind):
    given, left_out = (any_trainer(kind, **options) for options in ({"data_collator": None}, {}))
    batches = [next(iter(trainer.get_train_dataloader())) for trainer in (given, left_out)]
    assert batches[0].keys() == batches[1].keys()
    assert all(torch.equal(batches[0][name], batches[1][name]) for name in batches[0])


def test_own_metrics_stand_beside_the_exact_ones(any_trainer, kind, tmp_path):
    """transformers chooses the best checkpoint by `eval_loss`, which stays whatever is measured beside it."""
    seen = []

    def own(prediction):
        seen.append((np.shape(prediction.predictions), np.shape(prediction.label_ids)))
        return {"mine": 7.0}

    trainer = any_trainer(
        kind, compute_metrics=own, eval_strategy="steps", eval_steps=1, save_steps=1, save_strategy="steps",
        load_best_model_at_end=True, max_steps=2,
    )  # fmt: skip
    trainer.train()
    assert trainer.state.best_model_checkpoint is not None
    found, exact = trainer.evaluate(), any_trainer(kind, model=trainer.model).evaluate()
    assert found["eval_mine"] == 7.0 and len(seen) == 3
    of_tokens = ("loss", "nll", "perplexity", "tokens")
    texts = ("causal_lm", "masked_lm", "seq2seq")
    names = {**dict.fromkeys(texts, of_tokens), "edm": ("loss", "ema_loss", "images"),
             "classifier": ("loss", "nll", "accuracy", "rows")}  # fmt: skip
    for name in names.get(kind, ("loss", "nll", "accuracy", "images")):
        if name != "ema_loss":  # a new trainer's average begins anew
            assert found[f"eval_{name}"] == pytest.approx(exact[f"eval_{name}"], rel=1e-6)
    shapes = dict.fromkeys(texts, ((5, 2), (5,)))
    shapes |= dict.fromkeys(("classifier", "image_classifier"), ((13, 4), (13,))) | {"edm": ((13, 2), (13,))}
    assert seen[0] == shapes.get(kind, ((13, 2, 8), (13,)))  # as the docstrings say


@pytest.mark.parametrize("name", ["loss", "eval_loss"])
def test_own_metrics_do_not_replace_the_exact_loss(any_trainer, kind, name):
    trainer = any_trainer(kind, compute_metrics=lambda prediction: {name: 0.0})
    with pytest.raises(ValueError, match=f"compute_metrics returns {name} = 0.0, which is .*; give it another name"):
        trainer.evaluate()


def test_own_metrics_may_agree_with_the_exact_ones_and_must_be_figures(any_trainer):
    def accuracy(prediction):
        return {"accuracy": (prediction.predictions.argmax(-1) == prediction.label_ids).mean(), "own": 1.0}

    found = any_trainer("image_classifier", compute_metrics=accuracy).evaluate()
    assert found["eval_own"] == 1 and 0 <= found["eval_accuracy"] <= 1
    with pytest.raises(ValueError, match="compute_metrics returns accuracy = -1"):
        any_trainer("image_classifier", compute_metrics=lambda prediction: {"accuracy": -1}).evaluate()
    with pytest.raises(TypeError, match="compute_metrics must return figures by name, got None"):
        any_trainer("image_classifier", compute_metrics=lambda prediction: None).evaluate()


@pytest.mark.parametrize(
    "settings",
    [{"per_device_eval_batch_size": 3}, {"prediction_loss_only": True}, {"eval_accumulation_steps": 1},
     {"include_for_metrics": ["loss"]}],
    ids=str,
)  # fmt: skip
def test_exact_figures_do_not_depend_on_how_predictions_are_kept(any_trainer, kind, settings):
    found = []
    for options in ({}, settings):
        trainer = any_trainer(kind, **options)
        exact = ("eval_loss", "eval_nll", "eval_images", "eval_tokens")
        found.append({name: value for name, value in trainer.evaluate().items() if name in exact})
    assert found[0] == pytest.approx(found[1], rel=1e-6) and found[0]["eval_loss"] > 0


@pytest.mark.parametrize(
    ("kind", "options"),
    [("causal_lm", {"loss": "corrected", "error_rate": "learned"}), ("time_classifier", {"transition": "estimated"}),
     ("classifier", {"loss": "corrected", "transition": "estimated"})],
)  # fmt: skip
def test_a_scheduler_made_before_a_learned_parameter_is_refused(any_trainer, kind, options):
    model = any_trainer(kind).model
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    with pytest.raises(ValueError, match=r"adds a parameter to the optimizer.*pass optimizers=\(optimizer, None\)"):
        any_trainer(kind, model=model, optimizers=(optimizer, scheduler), **options)
    trainer = any_trainer(kind, model=model, optimizers=(optimizer, None), **options)
    trainer.train()
    assert len(trainer.optimizer.param_groups) == 2
    # Nothing is learned beside the weights here: a scheduler of one's own does no harm.
    model = any_trainer(kind).model
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5)
    trainer = any_trainer(kind, model=model, optimizers=(optimizer, scheduler))
    trainer.train()
    assert trainer.state.log_history[0]["learning_rate"] == 5e-4


def test_an_optimizer_class_is_honoured(any_trainer, kind):
    trainer = any_trainer(kind, optimizer_cls_and_kwargs=(torch.optim.Adagrad, {"lr": 0.125}))
    trainer.train()
    assert isinstance(trainer.optimizer.optimizer, torch.optim.Adagrad)
    assert trainer.optimizer.param_groups[0]["lr"] == 0.125


def test_numbers_of_numpy_are_those_that_they_hold(any_trainer):
    trainer = any_trainer("causal_lm", max_steps=np.int64(1), learning_rate=np.float32(0.5), bf16=np.bool_(False))
    trainer.train()
    assert (trainer.args.max_steps, trainer.args.learning_rate, trainer.state.global_step) == (1, 0.5, 1)


def test_sharding_is_taken_however_transformers_keeps_it(tmp_path):
    """Its field says that it is a text, and holds True."""
    check_values(TrainingArguments(output_dir=str(tmp_path), use_cpu=True, fsdp="full_shard"))


def test_fields_of_ones_own_arguments_are_not_judged(tiny_gpt2, random_rows, tmp_path):
    @dataclasses.dataclass
    class Own(TrainingArguments):
        threshold: float = math.inf
        plan: Unknown = None  # noqa: F821  (as under TYPE_CHECKING)

    args = Own(output_dir=str(tmp_path), use_cpu=True, report_to="none")
    CausalLMTrainer(tiny_gpt2(), args, train_dataset=random_rows(4))


@pytest.mark.parametrize("cls", [CausalLMTrainer, ImageClassifierTrainer])
def test_a_model_without_a_config_is_refused(cls, arguments):
    with pytest.raises(TypeError, match="model must have a config, where its noise is stated; Linear has none"):
        cls(torch.nn.Linear(2, 2), arguments())
