"""Hugging Face transformers: what a `Trainer` does beside its loss follows a `Sampler`.

`transformers.SelectionMixin` adds it. With a `compute_loss` of your own that observes, add it by `add_callback`.
"""

import os
from typing import Any

from dynsel_jax.adapters import trainers
from dynsel_jax.options import needs
from dynsel_jax.sampler import Sampler

with needs(__name__, "transformers accelerate"):
  import transformers
  from torch.optim.lr_scheduler import LambdaLR

__all__ = ["STATE", "SelectionCallback"]

STATE = "sampler.json"  # in a checkpoint's folder


class SelectionCallback(transformers.TrainerCallback):
  """Saves the sampler with each checkpoint; sets the learning rate and the epoch by what the sampler has done."""

  def __init__(self, selection: Sampler):
    self._selection, self._rates = selection, list[float]()

  def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, optimizer: Any = None, **_: Any) -> None:
    self._rates = [group["lr"] for group in optimizer.param_groups]
    for group in optimizer.param_groups:
      group["lr"] *= self._selection.learning_rate_multiplier

  def on_optimizer_step(
    self, args: Any, state: Any, control: Any, optimizer: Any = None, lr_scheduler: Any = None, **_: Any
  ) -> None:
    for group, rate in zip(optimizer.param_groups, self._rates, strict=True):
      group["lr"] = rate
    if isinstance(lr_scheduler, LambdaLR):  # its step comes next, and sets the rate anew
      done = self._selection.progress / self._selection.num_epochs
      lr_scheduler.last_epoch = round(done * state.max_steps) - 1

  def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
    state.epoch = self._selection.progress

  def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
    if state.is_world_process_zero:
      trainers.save(self._selection, os.path.join(args.output_dir, f"checkpoint-{state.global_step}", STATE))
