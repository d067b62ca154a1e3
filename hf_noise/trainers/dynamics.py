"""Training dynamics for free: what each pass made of each sample's label, from logits that are there anyway."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import TrainerCallback

from hf_noise.trainers.dynamics_files import Part, check_whole, first_copies, keep_until, parts_in, write_part
from hf_noise.trainers.folders import claim_folder, is_claimed, locked, refuse_other
from hf_noise.trainers.resuming import agreed, claims_of

__all__ = ["DynamicsCallback", "row_dynamics"]

logger = logging.getLogger(__name__)

#: Passes whose logits wait on the device until they are looked at together, and the bytes that they may take.
_PASSES, _BYTES = 64, 4 << 20
_TOKENS = "for labels of tokens hf_noise.audit_tokens tells how likely each is noise"


@torch.no_grad()
def row_dynamics(logits: Tensor, labels: Tensor) -> Tensor:
    """Loss, margin and probability of given labels, float32 [3, B].

    The loss is -log p(given) in nats, the margin z_given - max over the others of z (Pleiss et al. 2020, equation 1),
    which is above 0 where the given label is the most likely one.

    Args:
        logits: [B, C] of any float dtype, C >= 2; computed in float32.
        labels: int64 [B] in [0, C).
    """
    logits, given = logits.float(), labels[:, None]
    loss = logits.logsumexp(-1) - logits.gather(1, given)[:, 0]
    margin = logits.gather(1, given)[:, 0] - logits.scatter(1, given, -torch.inf).amax(1)
    return torch.stack([loss, margin, (-loss).exp()])


class DynamicsCallback(TrainerCallback):
    """Records per sample and epoch the loss, margin and p(given) of a classifier while it is trained.

    Give it as `callbacks=[DynamicsCallback(folder)]` to `ClassifierTrainer`, `ImageClassifierTrainer`, or a stock
    `transformers.Trainer`; `hf_noise.audit.read_dynamics(folder)` reads what it wrote, and scores which labels are
    wrong. The values are those of the logits that training computes anyway, in the weights, the dropout and the
    augmentation of that pass, and of labels as they are trained on, noisy ones too; there is no further pass. Logits
    wait on the device, in float32, and are looked at once in 64 passes (or 4 MiB), so that a step waits for nothing.

    The stock Trainer has to hand on the sample ids: `TrainingArguments(remove_unused_columns=False)`, and a collator
    that keeps the column `sample_id` (those of transformers do). The model is not shown it. Losses of your own are fine
    as long as the model is called once in a pass and given `labels`, which `label_smoothing_factor` and
    `compute_loss_func` of the stock Trainer take away from it; `ClassifierTrainer` smooths labels too.

    The folder holds Parquet files, one of each process and stretch of steps between checkpoints or ends of epochs, with
    the columns `sample_id`, `epoch`, `step` (optimiser steps that were finished before), `label`, `loss` in nats,
    `margin` and `p_given`. Files are whole or not there. A resumed run drops what was seen after its checkpoint and
    goes on, so that no row is there twice and none is missing. Several processes write each their own; all have to see
    the folder. A sample that is given out twice to fill the last batch counts once, see `read_dynamics`. A run that is
    started anew with the same settings begins the record anew.

    Args:
        folder: of this run alone; made if it is not there.

    Raises:
        TypeError: the folder is no path. When training begins: FileExistsError, the folder holds another run;
            BlockingIOError, another process writes there; ValueError, the folder lacks what a resumed run saw before
            its checkpoint, sample ids repeat, or images are mixed. In training, before the step is taken: ValueError,
            rows have no `sample_id` or no single label; RuntimeError, the model was not called, or several GPUs have
            one process. When an epoch ends: ValueError, sample ids repeat.

    Source: what AUM (Pleiss et al. 2020), forgetting (Toneva et al. 2019) and data maps (Swayamdipta et al. 2020) are
        made of.
    """

    def __init__(self, folder: str | os.PathLike):
        if not isinstance(folder, str | os.PathLike) or not str(folder):
            raise TypeError(f"folder must be a path to write to, got {folder!r:.80} of type {type(folder).__name__}")
        self.folder = Path(folder)
        self._is_shown = False  # by a trainer of ours, else by hooks
        self._claims: dict[str, Any] = {}
        self._settings: dict[str, Any] = {}
        self._hooks: list[Any] = []
        self._used = ExitStack()
        self._forget(0)

    def _forget(self, step: int) -> None:
        """Begin a run whose next step is this."""
        self._first = self._step = step
        self._epoch: int | None = None
        self._passes = self._bytes = 0
        self._held: list[tuple[int, Tensor, Tensor, Tensor]] = []
        self._rows: list[dict[str, np.ndarray]] = []
        self._of_epoch: list[tuple[np.ndarray, np.ndarray]] = []
        self._given: tuple[Any, Any] = (None, None)

    # ---- what a trainer of ours calls

    def attach(self, trainer: Any, ids: np.ndarray | None) -> None:
        """A run of this trainer begins, whose rows have these sample ids, None where they are not known before."""
        if ids is not None:
            first_copies(ids, np.zeros_like(ids), epoch=0, processes=1)
        self._is_shown, self._claims = True, json.loads(next(iter(claims_of(trainer).values())))

    def seen(self, logits: Tensor, labels: Any, ids: Any) -> None:
        """Take up a pass of training: logits [B, C], labels as they are trained on and sample ids, int [B] each."""
        _check_pass(logits, labels, ids)
        # A copy also of what is float32: a compiled model may give its next logits in the same memory.
        self._held.append((self._step, logits.detach().to(torch.float32, copy=True), labels, ids))
        self._passes += 1
        self._bytes += 4 * logits.numel()

    def flush(self, step: int) -> None:
        """Write all that was seen before this step."""
        if self._epoch is None or step <= self._first:
            return
        self._fetch()
        names = ("sample_id", "step", "label", "loss", "margin", "p_given")
        empty = {name: np.zeros(0) for name in names}
        columns = {name: np.concatenate([rows[name] for rows in self._rows or [empty]]) for name in names}
        if self.args.process_index == 0:  # not before: a run that broke off in its first step blocks no other
            claim_folder(self.folder, self._settings)
        part = Part(self._epoch, self._first, step, self.args.process_index, self.args.world_size)
        write_part(self.folder, part, columns)
        self._of_epoch.append((columns["sample_id"], columns["step"]))
        self._rows, self._first = [], step

    def release(self) -> None:
        """The run has ended, or broke off: the model is left alone, and the folder."""
        for hook in self._hooks:
            hook.remove()
        self._hooks, self._is_shown, self._claims = [], False, {}
        self._used.close()

    def _fetch(self) -> None:
        """Look at all passes that wait, and bring what they gave to the host."""
        if not self._held:
            return
        steps, logits, labels, ids = zip(*self._held)
        steps = np.repeat(steps, [len(one) for one in labels])
        logits = torch.cat(logits)
        labels, ids = (torch.cat(one).to(logits.device).long() for one in (labels, ids))
        classes = logits.shape[1]
        values = row_dynamics(logits, labels.clamp(0, classes - 1)).cpu().numpy()
        labels, ids = torch.stack([labels, ids]).cpu().numpy()
        if (wrong := (labels < 0) | (labels >= classes)).any():
            raise ValueError(f"labels must lie in [0, {classes}), got {labels[wrong][0]} for sample_id "
                             f"{ids[wrong][0]}; leave rows without a label out")  # fmt: skip
        named = {"sample_id": ids, "step": steps, "label": labels}
        self._rows.append(named | dict(zip(("loss", "margin", "p_given"), values)))
        self._held, self._bytes = [], 0

    # ---- hooks on the model of any other trainer

    def _hooked(self, model: nn.Module) -> list[Any]:
        def before(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
            self._given = kwargs.pop("sample_id", None), kwargs.get("labels")
            return args, kwargs

        def after(module: nn.Module, args: tuple, output: Any) -> None:
            if module.training and torch.is_grad_enabled():
                logits = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
                ids, labels = self._given
                self.seen(logits, labels, ids)
            self._given = None, None

        return [model.register_forward_pre_hook(before, with_kwargs=True), model.register_forward_hook(after)]

    # ---- what transformers calls

    def on_train_begin(self, args, state, control, model=None, train_dataloader=None, **kwargs):
        self._used.close()
        self._forget(state.global_step)
        self.args = args
        if args.n_gpu > 1:
            raise RuntimeError(f"DynamicsCallback sees one model, and there are {args.n_gpu} GPUs and one process; "
                               "start with `accelerate launch`, not `python`")  # fmt: skip
        if args.ignore_data_skip and state.global_step:
            raise ValueError("ignore_data_skip=True gives a resumed run samples of the epoch again, which would be "
                             "recorded twice; leave it out")  # fmt: skip
        for hook in self._hooks:  # of a run that broke off
            hook.remove()
        self._settings = self._settings_of(model, getattr(train_dataloader, "dataset", None))
        try:
            agreed(self, (lambda: self._take_up(state.global_step)) if args.process_index == 0 else None)
        except BaseException:
            self._used.close()
            raise
        self._hooks = [] if self._is_shown else self._hooked(model)

    def _settings_of(self, model: nn.Module, rows: Any) -> dict[str, Any]:
        """What the run of a folder has to have in common with this one."""
        args = self.args
        told = {"recorded_by": type(self).__name__, "run": Path(args.output_dir).name, "model": type(model).__name__,
                "rows": len(rows) if hasattr(rows, "__len__") else None,
                "labels": getattr(getattr(model, "config", None), "num_labels", None),
                "seed": args.seed, "data_seed": args.data_seed, "learning_rate": args.learning_rate}  # fmt: skip
        return told | {f"of_{name}": value for name, value in self._claims.items()}

    def _take_up(self, step: int) -> None:
        """Make the folder hold what was seen before this step, and no more; on the main process."""
        self._used.enter_context(locked(self.folder))
        refuse_other(self.folder, self._settings)
        if parts_in(self.folder) and not is_claimed(self.folder):
            raise FileExistsError(f"{self.folder} holds training dynamics of a run that it does not tell; delete it or "
                                  "choose another folder")  # fmt: skip
        if dropped := keep_until(self.folder, step):
            begins = f"goes on from step {step}" if step else "begins anew"
            logger.warning("%s: %d rows that were seen after are dropped, as the run %s", self.folder, dropped, begins)
        check_whole(self.folder, parts_in(self.folder), end=step)

    def on_epoch_begin(self, args, state, control, **kwargs):
        # A resumed run may stand anywhere in its epoch.
        self._epoch = int(state.epoch or 0) if self._epoch is None else self._epoch + 1
        self._of_epoch = []

    def on_step_begin(self, args, state, control, **kwargs):
        self._step, self._passes = state.global_step, 0

    def on_step_end(self, args, state, control, **kwargs):
        if not self._passes:
            raise RuntimeError("DynamicsCallback saw no logits in a step: the trainer's compute_loss does not call the "
                               "model itself, such as one of your own; let it call model(**inputs)")  # fmt: skip
        if self._bytes >= _BYTES or len(self._held) >= _PASSES:
            self._fetch()
        if control.should_save:  # before the checkpoint is there
            self.flush(state.global_step)

    def on_evaluate(self, args, state, control, **kwargs):
        if args.save_strategy == "best":  # whether it is saved is told after this
            self.flush(state.global_step)

    def on_save(self, args, state, control, **kwargs):
        self.flush(state.global_step)

    def on_epoch_end(self, args, state, control, **kwargs):
        self.flush(state.global_step)
        ids, steps = (np.concatenate(one) for one in zip(*self._of_epoch)) if self._of_epoch else (np.zeros(0),) * 2
        first_copies(ids, steps, epoch=self._epoch, processes=args.world_size)

    def on_train_end(self, args, state, control, **kwargs):
        self.flush(state.global_step)
        self.release()


def _check_pass(logits: Any, labels: Any, ids: Any) -> None:
    """Raise ValueError unless these are of one label a row, with the remedy."""
    if not isinstance(logits, Tensor):
        raise ValueError(f"DynamicsCallback needs the logits of a classifier, the model gives {type(logits).__name__}; "
                         "let it return an output with `logits` [B, C]")  # fmt: skip
    if logits.ndim != 2 or logits.shape[1] < 2:
        raise ValueError(f"DynamicsCallback records one label of each row, logits [B, C >= 2], and the model gives "
                         f"{list(logits.shape)}; {_TOKENS}")  # fmt: skip
    if not isinstance(labels, Tensor):
        raise ValueError("DynamicsCallback needs the labels that the model is given, and it is given none: leave "
                         "label_smoothing_factor and compute_loss_func out, which take them away, or use "
                         "hf_noise.trainers.ClassifierTrainer, which smooths labels too")  # fmt: skip
    if labels.shape != logits.shape[:1] or labels.is_floating_point():
        raise ValueError(f"labels must be integers [B = {len(logits)}], one class of each row, got {labels.dtype} "
                         f"{list(labels.shape)}; {_TOKENS}")  # fmt: skip
    if ids is None:
        raise ValueError("DynamicsCallback needs the column sample_id, an integer of each row, and batches have none: "
                         "rows = rows.add_column('sample_id', range(len(rows))), TrainingArguments("
                         "remove_unused_columns=False) and a data collator that keeps the column")  # fmt: skip
    if not isinstance(ids, Tensor) or ids.shape != labels.shape or ids.is_floating_point() or ids.dtype == torch.bool:
        told = f"{ids.dtype} {list(ids.shape)}" if isinstance(ids, Tensor) else type(ids).__name__
        raise ValueError(f"sample_id must be integers [B = {len(logits)}], got {told}; number the rows: "
                         "rows.remove_columns('sample_id').add_column('sample_id', range(len(rows)))")  # fmt: skip
