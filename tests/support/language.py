"""Tiny decoders of the Llama family with reference outputs of `transformers`, and planted documents."""

import json
import shutil

import numpy as np
from safetensors import safe_open

from tests.support import ROOT, oracles

__all__ = ["DECODERS", "conversations", "documents", "folder", "padded_ids", "write_rows"]

DECODERS = ("tiny_llama_tied", "tiny_llama_untied", "tiny_qwen2")


def folder(name, path):
  """Writes a tiny decoder in Hugging Face's layout; returns the folder."""
  weights = ROOT / "tests" / "data" / f"{name}.safetensors"
  path.mkdir(parents=True, exist_ok=True)
  shutil.copy(weights, path / "model.safetensors")
  with safe_open(weights, "numpy") as file:
    config = json.loads(file.metadata()["config"])
  config.setdefault("model_type", "qwen2" if "qwen" in name else "llama")
  (path / "config.json").write_text(json.dumps(config))
  return path


def padded_ids(name):
  """Returns the reference arrays, and the token ids with -1 on padding."""
  held = oracles.load(name)
  return held, np.where(held["attention_mask"] == 1, held["input_ids"], -1).astype(np.int32)


def write_rows(path, rows):
  """Writes objects as JSON Lines; returns the path."""
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))
  return str(path)


def documents(path, count, seed=0):
  """Writes documents of two domains: one counts letters on, the other back; returns the path."""
  rng = np.random.default_rng(seed)
  letters, rows = "abcdefghijklmnopqrstuvwxyz", []
  for number in range(count):
    text = (letters * 3)[(start := rng.integers(26)) : start + rng.integers(12, 40)]
    rows.append({"text": text if number % 3 else text[::-1], "domain": "on" if number % 3 else "back"})
  return write_rows(path, rows)


def conversations(path, count, seed=0):
  """Writes prompts of two sources: one asks for the next letter, the other for the one before; returns the path."""
  rng = np.random.default_rng(seed)
  letters, rows = "abcdefghijklmnopqrstuvwxyz", []
  for number in range(count):
    place, step = int(rng.integers(1, 25)), 1 if number % 2 else -1
    words = {1: "after", -1: "before"}[step]
    rows.append({"prompt": f"{words} {letters[place]}?", "response": letters[place + step], "source": words})
  return write_rows(path, rows)
