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
from typing import Any

from dynsel_jax.adapters import trainers
from dynsel_jax.adapters.torch import IndexedCollator, SelectionSampler, WithIndex, gather_thin, sequence_losses, torch
from dynsel_jax.options import UserError, needs
from dynsel_jax.sampler import Sampler

with needs(__name__, "transformers accelerate"):
  from transformers.trainer_utils import get_last_checkpoint

  from dynsel_jax.adapters.transformers_callback import STATE, SelectionCallback

__all__ = ["SelectionMixin"]

_Trainer: Any = object  # whose attributes the mixin uses


class SelectionMixin(_Trainer):
  """In front of a `Trainer` in the bases of a class: gives it a keyword `selection`, a `Sampler`."""

  def __init__(self, *args: Any, selection: Sampler, **kwargs: Any):
    super().__init__(*args, **kwargs)
    self.selection, own = selection, self.args
    self._stopped: tuple[Any, int] = (None, -1)  # the checkpoint from which this goes on, and the epoch that it is of
    rows = own.per_device_train_batch_size * own.world_size
    sizes = {"num_samples": len(self.train_dataset), "batch_size": rows, "num_epochs": own.num_train_epochs}
    reasons = {
      "max_steps: the epochs differ in length; set num_train_epochs": own.max_steps > 0,
      "DataParallel: start a process for each GPU": own.n_gpu > 1,
      "a loss of your own: override token_losses": own.label_smoothing_factor or self.compute_loss_func,
      "a method that scores samples again after an epoch, which Trainer does not": selection.selector.refresh,
    }
    trainers.check("SelectionMixin", selection, sizes, reasons)
    own.ignore_data_skip = True  # the selection knows where it stands
    self.train_dataset: Any = WithIndex(self.train_dataset)
    self.data_collator: Any = IndexedCollator(self.data_collator)
    self._set_signature_columns_if_needed()
    self._signature_columns: list[str] = [*self._signature_columns, "index"]
    self.add_callback(SelectionCallback(selection))

  def train(self, resume_from_checkpoint: Any = None, **kwargs: Any) -> Any:
    """Trains as `Trainer.train` does; with a checkpoint the selection goes on where it stood."""
    folder = get_last_checkpoint(self.args.output_dir) if resume_from_checkpoint is True else resume_from_checkpoint
    if folder:
      trainers.load(self.selection, os.path.join(folder, STATE))
      self._stopped = (folder, self.selection.epoch)
    return super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)

  def _get_train_sampler(self, train_dataset: Any = None) -> Any:
    # Several processes share a short last batch by repeating the samples that the loader read first, wherever it began.
    drop_last = self.args.dataloader_drop_last or self.args.world_size > 1
    return _WholeEpochs(self.selection, self.args.gradient_accumulation_steps, drop_last=drop_last)

  def token_losses(self, outputs: Any, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the sum of each sample's losses, and their number, `[b]` float32 each."""
    if getattr(outputs, "log_probs", None) is not None:  # of TRL, which builds no logits
      return -outputs.log_probs.float().sum(-1), outputs.label_mask.sum(-1).float()
    logits, model = outputs.logits, self.accelerator.unwrap_model(self.model)
    causal = getattr(getattr(model, "loss_function", None), "__name__", "") == "ForCausalLMLoss"
    shifted = labels.ndim > 1 and causal and not model.config.is_encoder_decoder
    return sequence_losses(logits[:, :-1], labels[:, 1:]) if shifted else sequence_losses(logits, labels)

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
    sums, terms = self.token_losses(outputs[0], inputs["labels"])
    extras = self.extras_of(outputs[0], inputs["labels"])
    factors, items = gather_thin(self.selection, index, sums / terms.clamp(min=1), terms, **extras)
    loss = (factors * sums).sum() * self.accelerator.num_processes
    if num_items_in_batch is not None:  # of all micro-batches of the optimizer's step, and of all processes or of one
      each = 1 if self.args.average_tokens_across_devices else self.accelerator.num_processes
      loss = loss * (items / (num_items_in_batch * each))
    return (loss, outputs[0]) if return_outputs else loss


class _WholeEpochs(SelectionSampler):
  """Has the length of an epoch on everything, from which a `Trainer` takes the most steps that an epoch can have."""

  def __len__(self) -> int:
    return self.selection.num_samples
