"""Fitting the sparse autoencoder: one jitted scan over steps, resumable between any two of them.

arXiv 2603.04981, App. A, leaves the recipe open; the defaults are this project's. `make_fit` gives pure functions, for
checkpointing and for more devices; `fit_sae` is the whole thing on the default device, and logs.
`N` is the number of samples, `D` the input width `d_in`, `L` the number of latents, `B` the batch, `S` steps of a call.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax
from absl import logging
from jax import Array, lax

from dynsel_jax.factors import sae
from dynsel_jax.factors.quality import Quality, measure, mostly_negative, warnings
from dynsel_jax.factors.sae import Codes, Losses, Normalizer, SAEParams
from dynsel_jax.options import UserError, check_choice, check_positive, check_settings, keyword_defaults

__all__ = ["SAE", "AdvanceFn", "Fit", "FitState", "fit_sae", "make_fit"]

_CALLS = 10  # a fit is run in at least this many calls if it has as many epochs, with a line in the log after each


class SAE(NamedTuple):
  """A fitted autoencoder. It can encode any data set of the same feature space."""

  params: SAEParams
  normalizer: Normalizer


class FitState(NamedTuple):
  """All that a fit carries from step to step. A pytree of arrays; saved and restored, the fit continues bit for bit."""

  params: SAEParams
  opt_state: optax.OptState
  since_fired: Array  # [L] int32, samples seen since the latent last fired
  order: Array  # [N] int32, the running epoch's visiting order
  step: Array  # [] int32, steps done


class AdvanceFn(Protocol):
  """Does `num_steps` steps from `state.step` on; `features` is `[N, D]` float32, not normalised.

  Returns the state and each step's losses, `[S]` each. The key is the same in every call of a fit.
  """

  def __call__(
    self, key: Array, state: FitState, normalizer: Normalizer, features: Array, num_steps: int
  ) -> tuple[FitState, Losses]: ...


class Fit(NamedTuple):
  """One fit's functions, with its hyper-parameters bound. Both are pure; `num_steps` is static."""

  init: Callable[[Array], FitState]  # consumes a key
  advance: AdvanceFn
  num_steps: int  # of the whole fit
  steps_per_epoch: int


def make_fit(
  num_samples: int,
  d_in: int,
  *,
  num_latents: int | None = None,
  k: int = 32,
  topk: str = "absolute",
  epochs: int = 50,
  batch_size: int = 4096,
  learning_rate: float = 1e-3,
  dead_after: int | None = None,
  revival_weight: float = 1 / 32,
  axis_name: str | None = None,
) -> Fit:
  """Binds a fit's hyper-parameters.

  Each epoch visits the samples in a fresh order; those that do not fill a last batch wait for the next epoch.

  Args:
    num_samples: N.
    d_in: D.
    num_latents: L, by default 8 * d_in.
    k: latents kept of each sample.
    topk: "absolute" or "value", see `sae.encode`.
    epochs: passes over the samples.
    batch_size: B over all devices, at most N is used.
    learning_rate: Adam's, at the start of a cosine that ends at 0.
    dead_after: samples without firing after which a latent is revived, by default 10 * B.
    revival_weight: weight of the revival loss.
    axis_name: the mapped axis, for `advance` under `jax.pmap`: each device takes its slice of every batch.

  Raises:
    UserError: a value is out of range.
  """
  num_latents = 8 * d_in if num_latents is None else num_latents
  batch_size = min(batch_size, num_samples)
  dead_after = 10 * batch_size if dead_after is None else dead_after
  positive = {"num_latents": num_latents, "epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate}
  for field, value in {**positive, "k": k, "dead_after": dead_after}.items():
    check_positive(field, value)
  check_positive("revival_weight", revival_weight, zero=True)
  check_choice("topk", topk, sae.TOPK)
  if k > num_latents:
    raise UserError(f"k={k} must be at most num_latents={num_latents}")
  steps_per_epoch = num_samples // batch_size
  num_steps = epochs * steps_per_epoch
  tx = optax.adam(optax.cosine_decay_schedule(learning_rate, num_steps))

  def init(key: Array) -> FitState:
    params = sae.init(key, num_latents, d_in)
    since_fired = jnp.zeros(num_latents, jnp.int32)
    order = jnp.arange(num_samples, dtype=jnp.int32)
    return FitState(params, tx.init(params), since_fired, order, jnp.int32(0))

  def batch_loss(params: SAEParams, x: Array, since_fired: Array) -> tuple[Array, tuple[Losses, Array]]:
    losses, since_fired = sae.losses(
      params,
      x,
      since_fired,
      k=k,
      topk=topk,
      dead_after=dead_after,
      revival_weight=revival_weight,
      axis_name=axis_name,
    )
    return losses.total, (losses, since_fired)

  def batch_positions(order: Array, start: Array) -> Array:
    if axis_name is None:
      return lax.dynamic_slice_in_dim(order, start, batch_size)
    num_devices = lax.axis_size(axis_name)
    if batch_size % num_devices:
      raise UserError(f"batch_size={batch_size} must be a multiple of the number of devices, {num_devices}")
    share = batch_size // num_devices
    return lax.dynamic_slice_in_dim(order, start + lax.axis_index(axis_name) * share, share)

  def advance(
    key: Array, state: FitState, normalizer: Normalizer, features: Array, num_steps: int
  ) -> tuple[FitState, Losses]:
    def step(state: FitState, _: None) -> tuple[FitState, Losses]:
      epoch, place = state.step // steps_per_epoch, state.step % steps_per_epoch
      order = lax.cond(
        place == 0,
        lambda old: jax.random.permutation(jax.random.fold_in(key, epoch), old.shape[0]).astype(jnp.int32),
        lambda old: old,
        state.order,
      )
      x = sae.normalize(normalizer, features[batch_positions(order, place * batch_size)])
      gradient, (losses, since_fired) = jax.grad(batch_loss, has_aux=True)(state.params, x, state.since_fired)
      if axis_name is not None:
        gradient, losses = lax.pmean((gradient, losses), axis_name)
      updates, opt_state = tx.update(gradient, state.opt_state, state.params)
      params = optax.apply_updates(state.params, updates)
      return FitState(params, opt_state, since_fired, order, state.step + 1), losses

    return lax.scan(step, state, length=num_steps)

  return Fit(init, advance, num_steps, steps_per_epoch)


def fit_sae(
  key: Array, features: Array, *, k: int = 32, topk: str = "absolute", orient: bool = False, **options: float
) -> tuple[SAE, Codes, Quality]:
  """Fits an autoencoder to a data set, encodes the set and measures both. Host-side: checks its input and logs.

  Args:
    key: consumed.
    features: `[N, D]` float32, on the device.
    k: latents kept of each sample.
    topk: "absolute" or "value", see `sae.encode`.
    orient: in the end give each latent the sign with which it is used more often. The paper leaves the signs to chance
      although its active sets hang on them; with "value" there is no choice to make.
    **options: the other keywords of `make_fit`, but for `axis_name`.

  Returns:
    The autoencoder, its codes of these features, and its quality on them.

  Raises:
    UserError: a value is out of range, or a feature is not finite.
  """
  known = keyword_defaults(make_fit)
  del known["axis_name"]
  check_settings("factors", "sae", options, known)
  if not jnp.isfinite(features).all():
    raise UserError(f"features has {int(jnp.sum(~jnp.isfinite(features)))} values that are not finite")
  plan = make_fit(features.shape[0], features.shape[1], k=k, topk=topk, **options)  # type: ignore[arg-type]
  init_key, order_key = jax.random.split(key)
  normalizer = jax.jit(sae.fit_normalizer)(features)
  state = jax.jit(plan.init)(init_key)
  advance = jax.jit(plan.advance, static_argnames="num_steps", donate_argnames="state")
  steps_a_call = _steps_a_call(plan)
  for done in range(steps_a_call, plan.num_steps + 1, steps_a_call):
    state, losses = advance(order_key, state, normalizer, features, num_steps=steps_a_call)
    logging.info(
      "SAE step %d of %d: squared error %.4f of 1, %.1f %% of latents dead",
      done,
      plan.num_steps,
      float(losses.reconstruction[-1]),
      100 * float(losses.dead_fraction[-1]),
    )
  params = state.params
  if orient and topk == "absolute":
    params = sae.flip(params, mostly_negative(params, normalizer, features, k=k))
  codes, quality = measure(params, normalizer, features, k=k, topk=topk)
  for line in warnings(quality):
    logging.warning(line)
  return SAE(params, normalizer), codes, quality


def _steps_a_call(plan: Fit) -> int:
  """Returns the most whole epochs' steps that divide a fit into `_CALLS` or more equal calls, so that one compiles."""
  epochs = plan.num_steps // plan.steps_per_epoch
  longest = max(epochs // _CALLS, 1)
  return plan.steps_per_epoch * next(count for count in range(longest, 0, -1) if epochs % count == 0)
