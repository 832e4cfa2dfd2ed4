"""Hugging Face transformers: selection inside `Trainer`, and in those that derive from it, such as TRL's `SFTTrainer`.

    class Trainer(SelectionMixin, trl.SFTTrainer): ...

    args = trl.SFTConfig("out", num_train_epochs=3, per_device_train_batch_size=16)
    selection = dynsel_jax.Sampler("infobatch", num_samples=len(dataset), epochs=3, batch_size=16)
    trainer = Trainer(model, args, train_dataset=dataset, selection=selection)
    trainer.train(resume_from_checkpoint=False)  # or True

`batch_size` is the micro-batch over all processes. The method observes the mean cross-entropy of each sequence's
labels, and its weight multiplies the cross-entropy of each of them, so `full` is the plain `Trainer`. Checkpoints hold
the sampler's state as sampler.json. Epochs differ in length, so a learning rate schedule runs by the epochs that are
done, and `len(train_dataloader)` is that of an epoch on everything. Several processes leave out what is left of an
epoch after its last whole batch, and gradient accumulation what is left after its last whole step.

For workers of the loader call `torch.multiprocessing.set_start_method("spawn")` first: JAX has threads, and a process
with threads must not be forked.
"""

import os
from collections.abc import Sequence
from typing import Any

from dynsel_jax.adapters import state_files
from dynsel_jax.adapters.torch import SelectionSampler, WithIndex, gathered, torch
from dynsel_jax.options import UserError
from dynsel_jax.sampler import Sampler

try:
  import transformers
  from transformers.trainer_utils import get_last_checkpoint
except ModuleNotFoundError as error:
  raise UserError("dynsel_jax.adapters.transformers needs transformers: pip install transformers accelerate") from error

__all__ = ["SelectionMixin"]

STATE = "sampler.json"
_Trainer: Any = object  # whose attributes the mixin uses


class SelectionMixin(_Trainer):
  """In front of a `Trainer` in the bases of a class: gives it a keyword `selection`, a `Sampler`."""

  def __init__(self, *args: Any, selection: Sampler, **kwargs: Any):
    super().__init__(*args, **kwargs)
    self.train_dataset: Any
    self.data_collator: Any
    self._signature_columns: list[str]
    self.selection = selection
    self._stopped: tuple[Any, int] = (None, -1)  # the checkpoint from which this goes on, and the epoch that it is of
    self._check()
    self.args.ignore_data_skip = True  # the selection knows where it stands
    if hasattr(self.train_dataset, "add_column"):
      self.train_dataset = self.train_dataset.add_column("index", range(selection.num_samples))
    else:
      self.train_dataset = WithIndex(self.train_dataset)
    self.data_collator = _IndexedCollator(self.data_collator)
    self.add_callback(_Callback(selection))

  def _check(self) -> None:
    args, selection = self.args, self.selection
    size = args.per_device_train_batch_size * args.world_size
    for wrong, words in (
      (selection.num_samples != len(self.train_dataset), f"train_dataset has {len(self.train_dataset)} rows"),
      (selection.batch_size != size, f"a micro-batch has {size} rows over all processes"),
      (selection.num_epochs != args.num_train_epochs, f"num_train_epochs={args.num_train_epochs}"),
    ):
      if wrong:
        has = f"{selection.num_samples} samples, batches of {selection.batch_size}, {selection.num_epochs} epochs"
        raise UserError(f"the selection is of {has}, but {words}")
    for wrong, words in (
      (args.max_steps > 0, "max_steps: the epochs differ in length; set num_train_epochs"),
      (args.n_gpu > 1, "DataParallel: start a process for each GPU"),
      (args.label_smoothing_factor or self.compute_loss_func, "a loss of your own: override token_losses"),
      (selection.selector.refresh, "a method that scores samples again after an epoch, which Trainer does not"),
    ):
      if wrong:
        raise UserError(f"SelectionMixin does not work with {words}")

  def train(self, resume_from_checkpoint: Any = None, **kwargs: Any) -> Any:
    """Trains as `Trainer.train` does; with a checkpoint the selection goes on where it stood."""
    folder = get_last_checkpoint(self.args.output_dir) if resume_from_checkpoint is True else resume_from_checkpoint
    if folder:
      state_files.load(self.selection, os.path.join(folder, STATE))
      self._stopped = (folder, self.selection.epoch)
    return super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)

  def _get_train_sampler(self, train_dataset: Any = None) -> Any:
    args = self.args
    # Several processes share a short last batch by repeating the samples that the loader read first, wherever it began.
    drop_last = args.dataloader_drop_last or args.world_size > 1
    return _WholeEpochs(self.selection, args.gradient_accumulation_steps, drop_last=drop_last)

  def _set_signature_columns_if_needed(self) -> None:
    super()._set_signature_columns_if_needed()
    if "index" not in self._signature_columns:
      self._signature_columns = [*self._signature_columns, "index"]

  def token_losses(self, outputs: Any, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the sum of each sample's losses, and their number, `[b]` float32 each."""
    if getattr(outputs, "log_probs", None) is not None:  # of TRL, which builds no logits
      return -outputs.log_probs.float().sum(-1), outputs.label_mask.sum(-1).float()
    logits, model = outputs.logits.float(), self.accelerator.unwrap_model(self.model)
    causal = getattr(getattr(model, "loss_function", None), "__name__", "") == "ForCausalLMLoss"
    if labels.ndim > 1 and causal and not model.config.is_encoder_decoder:
      logits, labels = logits[:, :-1], labels[:, 1:]
    losses = torch.nn.functional.cross_entropy(logits.transpose(1, -1), labels, reduction="none", ignore_index=-100)
    return losses.reshape(len(labels), -1).sum(-1), (labels != -100).reshape(len(labels), -1).sum(-1).float()

  def extras_of(self, outputs: Any, labels: torch.Tensor) -> dict[str, torch.Tensor]:
    """Returns the signals `[b]` that the method reads beside the loss; override it for those in `selection.extras`."""
    return {}

  def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
    """Returns the weighted loss of a training batch, which it observes; evaluation is the trainer's own."""
    index = (inputs := dict(inputs)).pop("index", None)
    if not model.training:
      return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
    if index is None or "labels" not in inputs:
      raise UserError(f"a training batch has {', '.join(inputs)}; it needs index and labels")
    if self._stopped[1] == self.selection.epoch:  # making a loader's iterator has drawn a number that nobody drew then
      self._load_rng_state(self._stopped[0])
    self._stopped = (None, -1)
    outputs: list[Any] = []

    def watched(**given: Any) -> Any:
      outputs.append(model(**given))
      return outputs[-1]

    super().compute_loss(watched, inputs, num_items_in_batch=num_items_in_batch)  # for the metrics that it keeps
    sums, counts = self.token_losses(outputs[0], inputs["labels"])
    if len(sums) != len(index):
      raise UserError(f"a batch of {len(index)} samples has {len(sums)} rows: do not pack samples into one row")
    factors, items = self._observed(index, sums.detach(), counts, self.extras_of(outputs[0], inputs["labels"]))
    loss = (factors * sums).sum()
    if num_items_in_batch is not None:  # of all micro-batches of the optimizer's step, and of all processes or of one
      each = 1 if self.args.average_tokens_across_devices else self.accelerator.num_processes
      loss = loss * (items / (num_items_in_batch * each))
    return (loss, outputs[0]) if return_outputs else loss

  def _observed(
    self, index: torch.Tensor, sums: torch.Tensor, counts: torch.Tensor, extras: dict[str, torch.Tensor]
  ) -> tuple[torch.Tensor, float]:
    """Shows a batch to the sampler; returns the factors of this process's sums in the mean, and all the counts."""
    columns = {"losses": sums / counts.clamp(min=1), "counts": counts, **extras}
    everywhere, named = gathered(index, columns, self.selection.batch_size)
    of_each = named.pop("counts")
    positions, weights = self.selection.thin(everywhere, **named)
    by_weight = self.selection.loss_normalization == "weight_sum"
    divisor = max(float((of_each[positions] * (weights if by_weight else 1)).sum()), 1e-9)
    factors = dict(zip(everywhere[positions].tolist(), (weights / divisor).tolist(), strict=True))
    mine = torch.tensor([factors.get(sample, 0.0) for sample in index.tolist()], device=sums.device)
    return mine * self.accelerator.num_processes, float(of_each.sum())


class _WholeEpochs(SelectionSampler):
  """Has the length of an epoch on everything, from which a `Trainer` takes the most steps that an epoch can have."""

  def __len__(self) -> int:
    return self.selection.num_samples


class _IndexedCollator:
  """Keeps the indices of samples past a collator that may know no such column."""

  def __init__(self, collator: Any):
    self._collator = collator

  def __call__(self, features: Sequence[dict[str, Any]]) -> Any:
    index = [feature["index"] for feature in features if "index" in feature]  # evaluation has none
    batch = self._collator([{name: value for name, value in f.items() if name != "index"} for f in features])
    return {**batch, "index": torch.tensor(index)} if index else batch


class _Callback(transformers.TrainerCallback):
  """Saves the sampler with each checkpoint; sets the learning rate and the epoch by what the sampler has done."""

  def __init__(self, selection: Sampler):
    self._selection = selection
    self._groups: list[tuple[Any, float]] = []  # of the optimizer, with their learning rates

  def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, optimizer: Any = None, **_: Any) -> None:
    epoch = self._selection.current()
    self._groups = [(group, group["lr"]) for group in optimizer.param_groups]
    for group, rate in self._groups:
      group["lr"] = rate * (epoch.learning_rate_multiplier if epoch is not None else 1)

  def on_optimizer_step(self, args: Any, state: Any, control: Any, lr_scheduler: Any = None, **_: Any) -> None:
    for group, rate in self._groups:
      group["lr"] = rate
    if isinstance(lr_scheduler, torch.optim.lr_scheduler.LambdaLR):  # its step comes next, and sets the rate anew
      done = self._selection.progress / self._selection.num_epochs
      lr_scheduler.last_epoch = round(done * state.max_steps) - 1

  def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
    state.epoch = self._selection.progress

  def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
    if state.is_world_process_zero:
      folder = os.path.join(args.output_dir, f"checkpoint-{state.global_step}")
      state_files.save(self._selection, os.path.join(folder, STATE))
