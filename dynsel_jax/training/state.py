"""The state of a run on the devices, which checkpoints hold entirely. Pytrees and pure functions.

`N` is the number of training samples.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax.training import train_state
from jax import Array

from dynsel_jax import batching
from dynsel_jax.types import Plan, Selector, SelectorState, Signals

__all__ = [
  "Meters",
  "RunState",
  "TrainState",
  "Usage",
  "create_run_state",
  "empty_meters",
  "record_usage",
]


class TrainState(train_state.TrainState):
  """Flax's train state with running statistics; the learning rate is an argument of its update."""

  batch_stats: Any

  def apply_gradients(  # type: ignore[override]
    self, *, grads: Any, learning_rate: Array, progress: Array, **changes: Any
  ) -> "TrainState":
    """Takes one optimizer step with `learning_rate`; `changes` replaces other fields, such as `batch_stats`.

    `progress` `[]` float32 is the fraction of training done before the step, for optimizers that depend on it.
    """
    tx = optax.with_extra_args_support(self.tx)
    updates, opt_state = tx.update(grads, self.opt_state, self.params, learning_rate=learning_rate, progress=progress)
    params = jax.tree.map(lambda p, u: p - learning_rate.astype(p.dtype) * u, self.params, updates)
    return self.replace(step=self.step + 1, params=params, opt_state=opt_state, **changes)


class Usage(NamedTuple):
  """The use of each sample over the whole run."""

  visits: Array  # [N] int32, number of backward passes
  last_loss: Array  # [N] float32, last observed loss; NaN until the sample has been seen


class Meters(NamedTuple):
  """Sums over the running epoch."""

  loss_sum: Array  # [] float32, observed losses summed over trained samples
  weight_sum: Array  # [] float32, loss weights summed over trained samples
  forward_visits: Array  # [] int32
  backward_visits: Array  # [] int32
  learning_rate: Array  # [] float32, of the last step
  non_finite_step: Array  # [] int32, first optimizer step, counted from 1, with a non-finite value, or -1


class RunState(NamedTuple):
  """Everything that changes while a run trains."""

  train: TrainState
  selector: SelectorState
  usage: Usage
  plan: Plan  # of the running epoch
  learning_rate_multiplier: Array  # [] float32, of the running epoch
  thin: Array  # [] bool, whether the running epoch thins its meta-batches
  meters: Meters


def empty_meters() -> Meters:
  """Returns the meters at the start of an epoch."""
  zero, none = jnp.zeros((), jnp.float32), jnp.zeros((), jnp.int32)
  return Meters(zero, zero, none, none, zero, none - 1)


def record_usage(usage: Usage, signals: Signals) -> Usage:
  """Counts the trained samples of one step and stores the observed losses; ignores padding."""
  num_samples = usage.visits.shape[0]
  position = jnp.where(signals.index < 0, num_samples, signals.index)
  return Usage(
    visits=usage.visits.at[position].add(signals.trained.astype(jnp.int32), mode="drop"),
    last_loss=usage.last_loss.at[position].set(signals.loss, mode="drop"),
  )


def create_run_state(
  key: Array, module: nn.Module, tx: Any, selector: Selector, example: Array, num_samples: int
) -> tuple[RunState, dict[str, Any] | None]:
  """Builds the state before the first step, and the variables that no step changes by collection; None without any.

  Args:
    key: consumed; split between the initialisation of the model and that of the selector.
    module: a model of `dynsel_jax.models`.
    tx: an optax transformation without a learning rate.
    selector: its `init` gives the initial selector state.
    example: `[1, ...]`, the inputs of one sample as the model takes them.
    num_samples: N.
  """
  model_key, selector_key = jax.random.split(key)
  variables = module.init(model_key, example, jnp.ones(1, bool), train=False)
  train = TrainState.create(
    apply_fn=module.apply, params=variables["params"], tx=tx, batch_stats=variables.get("batch_stats", {})
  )
  frozen = {name: held for name, held in variables.items() if name not in ("params", "batch_stats")}
  begun = RunState(
    train=train.replace(step=jnp.zeros((), jnp.int32)),
    selector=selector.init(selector_key),
    usage=Usage(jnp.zeros(num_samples, jnp.int32), jnp.full(num_samples, jnp.nan, jnp.float32)),
    plan=batching.empty_plan(num_samples),
    learning_rate_multiplier=jnp.float32(1),
    thin=jnp.bool_(False),
    meters=empty_meters(),
  )
  return begun, frozen or None
