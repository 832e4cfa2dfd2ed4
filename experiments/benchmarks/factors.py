"""Benchmarks of the factors: a training step of the sparse autoencoder, and scoring from stored codes."""

import functools
import resource
import statistics
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dynsel_jax import factors
from dynsel_jax.factors import fit, sae
from experiments.benchmarks import alternate, clock, seconds_of

__all__ = ["benchmark_sae", "benchmark_scoring"]

D_IN, NUM_LATENTS, K, BATCH_SIZE = 768, 6144, 32, 4096  # features of CLIP's ViT-L/14, 8 latents per dimension
STEPS = 3
# Matrix products of a step on dense codes: pre-activations, reconstruction, and in the backward pass the gradient of
# the tied matrix as the decoder, that of the latents, and that of the matrix as the encoder.
DENSE_PRODUCTS = 5


def benchmark_sae() -> None:
  """Prints the speed of an autoencoder step against a matrix product, and against PyTorch if it is installed."""
  rng = np.random.default_rng(0)
  features = rng.standard_normal((STEPS * BATCH_SIZE, D_IN), np.float32)
  plan = fit.make_fit(len(features), D_IN, num_latents=NUM_LATENTS, k=K, batch_size=BATCH_SIZE)
  placed, key = jnp.asarray(features), jax.random.key(0)
  state, normalizer = jax.jit(plan.init)(key), jax.jit(sae.fit_normalizer)(placed)
  advance = jax.jit(functools.partial(plan.advance, num_steps=STEPS))
  ours = functools.partial(advance, key, state, normalizer, placed)

  product = jax.jit(lambda x, weights: x @ weights.T)
  dense = functools.partial(product, placed[:BATCH_SIZE], state.params.W_enc)
  step, matmul, ratio = alternate(ours, dense, 9)
  rate = 2 * BATCH_SIZE * D_IN * NUM_LATENTS / matmul / 1e9
  print(
    f"SAE step, batch {BATCH_SIZE}, {D_IN} -> {NUM_LATENTS}, k = {K}: {clock(step / STEPS)};"
    f" the matrix product alone {clock(matmul)}, {rate:.0f} GFLOP/s"
  )
  print(
    f"  rate relative to the matrix product's: {DENSE_PRODUCTS * STEPS / ratio:.2f} if the {DENSE_PRODUCTS} products of"
    f" a step on dense codes are counted, {STEPS / ratio:.2f} if the one that is computed here is"
  )
  try:
    device = _torch_device(jax.devices()[0].platform)
  except ModuleNotFoundError:
    print("  PyTorch is not installed; to compare with it: pip install --editable '.[benchmark]'")
    return
  if not device:
    print(f"  not compared with PyTorch, which does not see the {jax.devices()[0].device_kind} that JAX computes on")
    return
  step, plain_step, ratio = alternate(ours, _torch_steps(sae.normalize(normalizer, placed), state, device), 5)
  print(f"  PyTorch on the same device {clock(plain_step / STEPS)} a step: {1 / ratio:.2f} times its samples a second")


def _torch_device(platform: str) -> str:
  """Returns PyTorch's name of JAX's kind of device; "" if PyTorch cannot compute there."""
  import torch

  return {"cpu": "cpu", "gpu": "cuda" if torch.cuda.is_available() else ""}.get(platform, "")


def _torch_steps(x: jax.Array, state: fit.FitState, device: str) -> Callable[[], Any]:
  """Returns the same steps as one writes them in PyTorch, awaited: dense codes, automatic gradients, Adam."""
  import torch

  batches = torch.tensor(np.asarray(x), device=device).split(BATCH_SIZE)
  W_enc, b_enc, b_dec = (torch.tensor(np.asarray(leaf), device=device, requires_grad=True) for leaf in state.params)
  optimizer = torch.optim.Adam([W_enc, b_enc, b_dec], lr=1e-3)
  since_fired = torch.zeros(NUM_LATENTS, dtype=torch.int32, device=device)

  def step(x: Any) -> None:
    nonlocal since_fired
    pre_acts = x @ W_enc.T + b_enc
    chosen = pre_acts.abs().topk(K, dim=1).indices
    latents = torch.zeros_like(pre_acts).scatter(1, chosen, pre_acts.gather(1, chosen))
    reconstruction = (x - latents @ W_enc - b_dec).square().sum(dim=1).mean()
    fired = (latents > 0).any(dim=0)
    since_fired = torch.where(fired, 0, since_fired + BATCH_SIZE)
    dead = (since_fired >= 10 * BATCH_SIZE).nonzero().squeeze(1)
    loss = reconstruction
    if len(dead):
      best = x[pre_acts[:, dead].argmax(dim=0)]
      value = (W_enc[dead] * best).sum(dim=1) + b_enc[dead]
      loss = loss + (best - value[:, None] * W_enc[dead] - b_dec).square().sum(dim=1).mean() / 32
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

  def steps() -> None:
    for batch in batches:
      step(batch)
    if device == "cuda":
      torch.cuda.synchronize()

  return steps


def benchmark_scoring() -> None:
  """Prints the seconds and the memory that both scores take, from stored codes of ImageNet's number of samples."""
  num_samples, num_classes = 1_281_167, 1000
  rng = np.random.default_rng(0)
  indices = jnp.asarray(rng.integers(0, NUM_LATENTS, (num_samples, K), np.int32))
  values = jnp.asarray(rng.standard_normal((num_samples, K), np.float32))
  labels = jnp.asarray(rng.integers(0, num_classes, num_samples, np.int32))

  def scores() -> Any:
    return factors.columns(sae.Codes(indices, values), labels, num_classes, num_latents=NUM_LATENTS)

  before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  jax.block_until_ready(scores())
  after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  seconds = statistics.median(seconds_of(scores) for _ in range(5))
  codes = (indices.nbytes + values.nbytes) / 2**20
  print(
    f"scoring {num_samples:,} samples with {K} active latents each: {clock(seconds)}; {codes:.0f} MiB of codes, and at"
    f" most {(after - before) / 1024:.0f} MiB more, compilation included"
  )
