"""Fits the sparse autoencoder in one jitted scan over steps that can be stopped and resumed between any two of them.

arXiv 2603.04981, App. A, leaves the recipe open; the defaults here are this project's. `make_fit` returns pure
functions for callers that checkpoint or use several devices. `fit_sae` runs a whole fit on the default device and logs.

`N` is the number of samples, `D` the input width `d_in`, `L` the number of latents, `B` the batch size and `S` the
number of steps in a call.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

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

_CALLS = 10  # a fit takes at least this many calls if it has as many epochs, with a line in the log after each


class SAE(NamedTuple):
  """A fitted autoencoder. It can encode any data set with features from the same space."""

  params: SAEParams
  normalizer: Normalizer


class FitState(NamedTuple):
  """State of a fit between two steps, a pytree of arrays. Saved and restored, the fit continues bit for bit."""

  params: SAEParams
  opt_state: optax.OptState
  since_fired: Array  # [L] int32, samples seen since the latent last fired
  order: Array  # [N] int32, visiting order of the current epoch
  step: Array  # [] int32, steps done


class AdvanceFn(Protocol):
  """Takes `num_steps` steps, starting at `state.step`; `features` is `[N, D]` float32, not normalised.

  Returns the state and the losses of each step, `[S]` each. The key must be the same in every call of a fit.
  """

  def __call__(
    self, key: Array, state: FitState, normalizer: Normalizer, features: Array, num_steps: int
  ) -> tuple[FitState, Losses]: ...


class Fit(NamedTuple):
  """The functions of one fit with its hyper-parameters bound. Both are pure; `num_steps` is static."""

  init: Callable[[Array], FitState]  # consumes a key
  advance: AdvanceFn
  num_steps: int  # of the whole fit
  steps_per_epoch: int


class _Recipe(NamedTuple):
  """Hyper-parameters of a step."""

  losses: Callable[[SAEParams, Array, Array], tuple[Losses, Array]]  # `sae.losses` with its keywords bound
  tx: optax.GradientTransformation
  batch_size: int  # over all devices
  steps_per_epoch: int
  axis_name: str | None


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
  """Binds the hyper-parameters of a fit.

  Each epoch visits the samples in a new order and drops those that do not fill its last batch.

  Args:
    num_samples: N.
    d_in: D.
    num_latents: L, by default 8 * d_in.
    k: latents kept per sample.
    topk: "absolute" or "value", see `sae.encode`.
    epochs: passes over the samples.
    batch_size: B over all devices; reduced to N if larger.
    learning_rate: Adam's at the first step; a cosine schedule takes it to 0.
    dead_after: samples without firing after which a latent is dead and gets revived, by default 10 * B.
    revival_weight: weight of the revival loss.
    axis_name: the mapped axis, for `advance` under `jax.pmap`: each device takes its slice of every batch.

  Raises:
    UserError: a value is out of range.
  """
  num_latents = 8 * d_in if num_latents is None else num_latents
  batch_size = min(batch_size, num_samples)
  dead_after = 10 * batch_size if dead_after is None else dead_after
  positive = {"num_latents": num_latents, "epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate}
  _check_options({**positive, "k": k, "dead_after": dead_after}, topk, revival_weight)

  steps_per_epoch = num_samples // batch_size
  num_steps = epochs * steps_per_epoch
  tx = optax.adam(optax.cosine_decay_schedule(learning_rate, num_steps))
  losses = functools.partial(
    sae.losses, k=k, topk=topk, dead_after=dead_after, revival_weight=revival_weight, axis_name=axis_name
  )
  recipe = _Recipe(losses, tx, batch_size, steps_per_epoch, axis_name)

  def init(key: Array) -> FitState:
    params = sae.init(key, num_latents, d_in)
    order = jnp.arange(num_samples, dtype=jnp.int32)
    return FitState(params, tx.init(params), jnp.zeros(num_latents, jnp.int32), order, jnp.int32(0))

  return Fit(init, functools.partial(_advance, recipe), num_steps, steps_per_epoch)


def _check_options(positive: dict[str, Any], topk: str, revival_weight: float) -> None:
  for field, value in positive.items():
    check_positive(field, value)
  check_positive("revival_weight", revival_weight, zero=True)
  check_choice("topk", topk, sae.TOPK)
  if positive["k"] > positive["num_latents"]:
    raise UserError(f"k={positive['k']} must be at most num_latents={positive['num_latents']}")


def _advance(
  recipe: _Recipe, key: Array, state: FitState, normalizer: Normalizer, features: Array, num_steps: int
) -> tuple[FitState, Losses]:
  """Implements `AdvanceFn`."""

  def step(state: FitState, _: None) -> tuple[FitState, Losses]:
    epoch, place = state.step // recipe.steps_per_epoch, state.step % recipe.steps_per_epoch
    # Every epoch's order comes from the key and the epoch alone, so that a resumed fit shuffles as an unbroken one.
    order = lax.cond(
      place == 0,
      lambda old: jax.random.permutation(jax.random.fold_in(key, epoch), old.shape[0]).astype(jnp.int32),
      lambda old: old,
      state.order,
    )
    batch = _device_batch(recipe, order, place * recipe.batch_size)
    x = sae.normalize(normalizer, features[batch])
    return _update(recipe, state._replace(order=order), x)

  return lax.scan(step, state, length=num_steps)


def _device_batch(recipe: _Recipe, order: Array, start: Array) -> Array:
  """Returns the sample indices of this device's slice of the batch that begins at `start` of the visiting order."""
  if recipe.axis_name is None:
    return lax.dynamic_slice_in_dim(order, start, recipe.batch_size)
  num_devices = lax.axis_size(recipe.axis_name)
  if recipe.batch_size % num_devices:
    raise UserError(f"batch_size={recipe.batch_size} must be a multiple of the number of devices, {num_devices}")
  per_device_batch_size = recipe.batch_size // num_devices
  offset = lax.axis_index(recipe.axis_name) * per_device_batch_size
  return lax.dynamic_slice_in_dim(order, start + offset, per_device_batch_size)


def _update(recipe: _Recipe, state: FitState, x: Array) -> tuple[FitState, Losses]:
  """Takes one step of the optimizer on a normalised batch."""

  def batch_loss(params: SAEParams) -> tuple[Array, tuple[Losses, Array]]:
    losses, since_fired = recipe.losses(params, x, state.since_fired)
    return losses.total, (losses, since_fired)

  gradient, (losses, since_fired) = jax.grad(batch_loss, has_aux=True)(state.params)
  if recipe.axis_name is not None:
    gradient, losses = lax.pmean((gradient, losses), recipe.axis_name)
  updates, opt_state = recipe.tx.update(gradient, state.opt_state, state.params)
  params = optax.apply_updates(state.params, updates)
  return FitState(params, opt_state, since_fired, state.order, state.step + 1), losses


def fit_sae(
  key: Array,
  features: Array,
  *,
  k: int = 32,
  topk: str = "absolute",
  orient: bool = True,
  active: str = "positive",
  **options: float,
) -> tuple[SAE, Codes, Quality]:
  """Fits an autoencoder to a data set, encodes the set and measures the quality of both. Host-side: checks and logs.

  Args:
    key: consumed.
    features: `[N, D]` float32, on the device.
    k: latents kept per sample.
    topk: "absolute" or "value", see `sae.encode`.
    orient: after the fit, flip each latent to the sign it takes more often, which only picks one of equally good
      autoencoders. The paper leaves the signs to chance, although its active sets depend on them. With "value" the
      option has no effect.
    active: which latents are active, see `quality.measure`.
    **options: the other keywords of `make_fit` except `axis_name`.

  Returns:
    The autoencoder, its codes for these features as of `quality.measure`, and its quality on them.

  Raises:
    UserError: a value is out of range or a feature is not finite.
  """
  known = keyword_defaults(make_fit)
  del known["axis_name"]
  check_settings("factors", "sae", options, known)
  if not jnp.isfinite(features).all():
    raise UserError(f"features contains {int(jnp.sum(~jnp.isfinite(features)))} values that are not finite")
  check_choice("active", active, sae.ACTIVE)
  fit = make_fit(features.shape[0], features.shape[1], k=k, topk=topk, **options)  # type: ignore[arg-type]
  normalizer = jax.jit(sae.fit_normalizer)(features)
  params = _run(key, fit, normalizer, features)
  if orient and topk == "absolute":
    params = sae.flip(params, mostly_negative(params, normalizer, features, k=k))
  codes, quality = measure(params, normalizer, features, k=k, topk=topk, active=active)
  for line in warnings(quality):
    logging.warning(line)
  return SAE(params, normalizer), codes, quality


def _run(key: Array, fit: Fit, normalizer: Normalizer, features: Array) -> SAEParams:
  """Runs a whole fit and logs its progress."""
  init_key, order_key = jax.random.split(key)
  state = jax.jit(fit.init)(init_key)
  advance = jax.jit(fit.advance, static_argnames="num_steps", donate_argnames="state")
  steps_per_call = _steps_per_call(fit)
  for done in range(steps_per_call, fit.num_steps + 1, steps_per_call):
    state, losses = advance(order_key, state, normalizer, features, num_steps=steps_per_call)
    logging.info(
      "SAE step %d of %d: squared error %.4f of 1, %.1f %% of latents dead",
      done,
      fit.num_steps,
      float(losses.reconstruction[-1]),
      100 * float(losses.dead_fraction[-1]),
    )
  return state.params


def _steps_per_call(fit: Fit) -> int:
  """Returns the steps of the longest call, in whole epochs, that divides a fit into `_CALLS` or more equal calls.

  Equal calls share one compiled program.
  """
  epochs = fit.num_steps // fit.steps_per_epoch
  longest = max(epochs // _CALLS, 1)
  return fit.steps_per_epoch * next(count for count in range(longest, 0, -1) if epochs % count == 0)
