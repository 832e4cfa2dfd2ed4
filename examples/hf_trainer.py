"""A method inside Hugging Face's Trainer; TRL's trainers take the same mixin.

    pip install torch transformers accelerate
    python examples/hf_trainer.py

Fine-tunes a tiny GPT-2 with random weights to count: each sequence goes up or down by its own step. Nothing is
downloaded.
"""

import tempfile

import numpy as np
import torch
import transformers

import dynsel_jax
from dynsel_jax.adapters.transformers import SelectionMixin

LENGTH, VOCABULARY, B = 12, 32, 32


class Trainer(SelectionMixin, transformers.Trainer):
  """Or `class Trainer(SelectionMixin, trl.SFTTrainer)`."""


class Counting(torch.utils.data.Dataset):
  """Sequences of numbers modulo the vocabulary: easy ones go up by 1, a fifth of them by another step."""

  def __init__(self, size, seed):
    rng = np.random.default_rng(seed)
    step = np.where(rng.random(size) < 0.8, 1, rng.integers(2, VOCABULARY, size))
    self.tokens = (rng.integers(0, VOCABULARY, (size, 1)) + step[:, None] * np.arange(LENGTH)) % VOCABULARY

  def __len__(self):
    return len(self.tokens)

  def __getitem__(self, index):
    return {"input_ids": self.tokens[index].tolist(), "labels": self.tokens[index].tolist()}


def train(method="infobatch", epochs=10, size=512):
  """Returns the loss on new sequences, and the fraction of the samples that was trained on."""
  transformers.set_seed(0)
  sizes = {"n_layer": 2, "n_head": 2, "n_embd": 64, "n_positions": LENGTH, "vocab_size": VOCABULARY}
  model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes, bos_token_id=0, eos_token_id=0))
  sampler = dynsel_jax.Sampler(method, num_samples=size, epochs=epochs, batch_size=B, seed=0)
  with tempfile.TemporaryDirectory() as folder:
    arguments = transformers.TrainingArguments(
      folder,
      num_train_epochs=epochs,
      per_device_train_batch_size=B,
      learning_rate=3e-3,
      save_strategy="no",  # with checkpoints, trainer.train(resume_from_checkpoint=True) continues the selection too
      report_to="none",
      disable_tqdm=True,
      use_cpu=True,
    )
    data = {"train_dataset": Counting(size, seed=1), "eval_dataset": Counting(size, seed=2)}
    trainer = Trainer(model, arguments, **data, selection=sampler)
    trainer.train()
    return trainer.evaluate()["eval_loss"], sampler.realised_keep_fraction


if __name__ == "__main__":
  for name in ("full", "infobatch"):
    print("{}: loss {:.3f} on new sequences with {:.0%} of the samples".format(name, *train(name)))
