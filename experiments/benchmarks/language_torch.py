"""The decoder's step in PyTorch with the library `transformers`: LlamaForCausalLM in float32, fused AdamW.

The model is read from the folder that `models.decoder_files` writes, so that both begin with the same weights.
"""

import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

__all__ = ["loss_and_gradient_norm", "model_of", "optimizer_of", "stepping"]


def model_of(folder: pathlib.Path) -> Any:
  """Returns the model in a folder, ready to be trained.

  Raises:
    ModuleNotFoundError: PyTorch or transformers is not installed.
  """
  import torch  # noqa: F401 - without it transformers has no models, and says so only when one is made
  import transformers

  transformers.utils.logging.disable_progress_bar()
  return transformers.LlamaForCausalLM.from_pretrained(folder, dtype="float32").train()


def _loss(model: Any, ids: np.ndarray) -> Any:
  import torch

  tokens = torch.from_numpy(ids).long()
  return model(input_ids=tokens, labels=tokens, use_cache=False).loss


def loss_and_gradient_norm(model: Any, ids: np.ndarray) -> tuple[float, float]:
  """Returns the mean cross-entropy of `ids` `[B, L]` int32 in nats, and the norm of its gradient by all weights."""
  loss = _loss(model, ids)
  loss.backward()
  squares = sum(float(weight.grad.double().square().sum()) for weight in model.parameters())
  model.zero_grad()
  return loss.item(), squares**0.5


def optimizer_of(model: Any, learning_rate: float, b2: float, weight_decay: float) -> Any:
  """Returns AdamW, which decays matrices alone."""
  import torch

  matrices = [weight for weight in model.parameters() if weight.ndim > 1]
  vectors = [weight for weight in model.parameters() if weight.ndim == 1]
  parts = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
  return torch.optim.AdamW(parts, lr=learning_rate, betas=(0.9, b2), fused=True)


def stepping(model: Any, optimizer: Any, batches: Iterator[np.ndarray], steps: int) -> Callable[[], None]:
  """Returns a call that takes `steps` training steps, each on the next batch `[B, L]` int32."""

  def call() -> None:
    for _ in range(steps):
      optimizer.zero_grad()
      _loss(model, next(batches)).backward()
      optimizer.step()

  return call
