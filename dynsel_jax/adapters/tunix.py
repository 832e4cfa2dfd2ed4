"""Tunix, and MaxText's fine-tuning over it: data hooks, and a trainer that observes the losses of samples.

    class Trainer(SelectionMixin, peft_trainer.PeftTrainer): ...

    selection = dynsel_jax.Sampler("infobatch", num_samples=len(tokens), epochs=3, batch_size=16)
    fetch = lambda index: {"input_tokens": tokens[index], "input_mask": mask[index]}

    def loss_fn(model, input_tokens, input_mask, weight):
      losses = sequence_losses(model, input_tokens, input_mask)  # [B]
      return jnp.sum(weight * losses), {"sample_loss": losses}

    trainer = Trainer(model, optax.adamw(1e-5), config).with_loss_fn(loss_fn, has_aux=True)
    trainer.with_data_hooks(SelectionDataHooks(selection, fetch))
    trainer.train([])

A batch has B rows always, so that the step is traced once; the weights are divided as the method wants it, and are 0 on
rows that fill up a last batch. Where the trainer saves a checkpoint, the state of the sampler goes into the folder
selection beside it, and `with_data_hooks` loads it. A loss function that returns a `LossOutput` of newer versions puts
sample_loss into its `aux_metrics`. For one process, with any number of devices.
"""

import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from dynsel_jax.adapters import trainers
from dynsel_jax.options import UserError, needs
from dynsel_jax.sampler import Sampler

with needs(__name__, "google-tunix"):
  from tunix.sft import hooks

__all__ = ["SelectionDataHooks", "SelectionMixin"]

IN_FLIGHT = 2  # steps whose losses are not waited for
_Trainer: Any = object  # whose attributes the mixin uses


class SelectionDataHooks(hooks.DataHooks):
  """Loads the batches of a `Sampler`, one epoch after another, and shows it their losses."""

  def __init__(
    self,
    selection: Sampler,
    fetch: Callable[[np.ndarray], dict[str, Any]],
    eval_batches: Callable[[], Iterator[Any]] = lambda: iter(()),
  ):
    """Wires a sampler to a data set.

    Args:
      selection: the sampler.
      fetch: returns the batch of the samples with indices `[B]`, by the names of the loss function's arguments.
      eval_batches: returns the batches of an evaluation.
    """
    apart = selection.selector.thin or selection.selector.refresh
    reasons = {"several processes": selection.world_size > 1, "a method that scores samples apart from training": apart}
    trainers.check("SelectionDataHooks", selection, {}, reasons)
    self.selection, self._fetch, self._eval_batches = selection, fetch, eval_batches
    self._batches: deque[tuple[np.ndarray, np.ndarray]] = deque()  # the first of them may have been loaded
    self._evaluation: Iterator[Any] | None = None
    self._pending: deque[tuple[np.ndarray, Any]] = deque()  # indices and signals of batches that were trained on

  def load_next_train_batch(self, train_ctx: Any) -> Any:
    """Returns the next batch, or None behind the last epoch."""
    if not self._batches:
      self.observe_pending()
      self._batches.extend(self.selection.read_ahead())
    if not self._batches:
      return None
    index, weight = self._batches[0]
    missing = self.selection.batch_size - len(index)
    batch = self._fetch(np.pad(index, (0, missing), mode="edge"))
    return {**batch, "weight": np.pad(self.selection.divided(weight), (0, missing))}

  def load_next_eval_batch(self, train_ctx: Any) -> Any:
    """Returns the next batch of an evaluation, or None behind its last."""
    self._evaluation = self._eval_batches() if self._evaluation is None else self._evaluation
    if (batch := next(self._evaluation, None)) is None:
      self._evaluation = None
    return batch

  def trained(self, aux: Any) -> None:
    """Takes what the loss function returned for the batch that was loaded; it is waited for some steps later."""
    names = ("sample_loss", *self.selection.extras)
    if not isinstance(aux, Mapping) or not set(names) <= set(aux):
      raise UserError(f"the loss function must return (loss, dict with {', '.join(names)} [B]): has_aux=True")
    index, _ = self._batches.popleft()
    self._pending.append((index, {name: aux[name] for name in names}))
    while len(self._pending) > IN_FLIGHT:
      self._observe_first()

  def observe_pending(self) -> None:
    """Shows the sampler all batches that were trained on."""
    while self._pending:
      self._observe_first()

  def _observe_first(self) -> None:
    index, signals = self._pending.popleft()
    named = {name: np.asarray(values)[: len(index)] for name, values in signals.items()}
    self.selection.observe(index, named.pop("sample_loss"), **named)


class SelectionMixin(_Trainer):
  """In front of a `PeftTrainer` in the bases of a class: observes, and saves the sampler with its checkpoints."""

  def with_data_hooks(self, data_hooks: SelectionDataHooks) -> Any:
    """Sets the hooks; after a restored checkpoint the sampler goes on where it stood."""
    if self.train_steps:
      trainers.load(data_hooks.selection, self._state_of(self.train_steps))
    saved = self.checkpoint_manager.save

    def save(step: int, *args: Any, **kwargs: Any) -> bool:
      done: bool = saved(step, *args, **kwargs)
      if done:
        self.data_hooks.observe_pending()
        trainers.save(self.data_hooks.selection, self._state_of(step))
      return done

    self.checkpoint_manager.save = save
    return super().with_data_hooks(data_hooks)

  def _state_of(self, step: int) -> str:
    return os.path.join(self.config.checkpoint_root_directory, "selection", f"{step}.json")

  def _post_process_train_step(self, aux: Any) -> None:
    super()._post_process_train_step(aux)
    self.data_hooks.trained(aux)
