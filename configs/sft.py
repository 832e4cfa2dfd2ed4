"""Supervised fine-tuning of SmolLM2-135M, or another Llama or Qwen2, on conversations; the loss is on the responses.

The files are JSON Lines of `prompt` and `response`, or of `messages` with `role` and `content`; a column `source` is
the label to balance over. `smollm2-135m-instruct` is a folder with Hugging Face's `model.safetensors`, `config.json`,
`tokenizer.json` and `tokenizer_config.json`, whose chat template is used. The headline is nats per token of the
responses to the test prompts, of which less is better. `size=cpu` trains low-rank updates on at most 128 tokens, some
seconds a step on two cores; `size=smoke` is an epoch of a tiny decoder with random weights on bytes, without a folder.

    python -m experiments.train --config=configs/sft.py:size=cpu,selector=es \
        --config.dataset.train=train.jsonl.gz --config.dataset.test=test.jsonl.gz --workdir=runs/sft_es

Another model: `--config.model.weights=DIR --config.dataset.tokenizer=DIR`. `--config.model.lora_rank=0` trains all
weights. `--config.task.loss_reduction=tokens` lets a step average over tokens in place of conversations.
"""

import ml_collections

from dynsel_jax import recipes


def get_config(variants: str = "") -> ml_collections.ConfigDict:
  """Returns the config; `variants` as in `dynsel_jax/recipes.py`."""
  return recipes.fine_tuning("conversations", variants)
