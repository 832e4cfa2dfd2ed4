"""The methods by name, and `create`, the only place where a selector is built. Host-side."""

from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import numpy as np

from dynsel_jax import options
from dynsel_jax.options import UserError
from dynsel_jax.selectors import (
  bls,
  central,
  dual,
  epsilon_greedy,
  evolved,
  full,
  infobatch,
  kakurenbo,
  loss_sampling,
  order_dp,
  random_rotation,
  random_static,
  rcap,
  repb,
  rho_loss,
  rrd,
  rs2,
  selective_backprop,
  seta,
  strata,
  top,
  ucb,
  wrapping,
)
from dynsel_jax.types import SampleTable, Selector

__all__ = ["METHODS", "Method", "columns", "create", "defaults", "weighting"]


class Method(NamedTuple):
  """A registered method."""

  factory: Callable[..., Selector]  # factory(table, epochs, *, options) -> Selector
  title: str
  arxiv: str  # "-" if there is no paper
  signal: str  # what it looks at: "none", "loss", ...
  level: str  # "epoch", or "batch" if it thins meta-batches
  weighting: str = "mean_one"  # how a step uses the weights unless the config says otherwise
  columns: tuple[str, ...] = ()  # of `SampleTable.columns`, what it reads beside what its option `column` names


METHODS: dict[str, Method] = {
  "bls_infobatch": Method(bls.bls_infobatch, "BLS over InfoBatch", "2604.04681", "batch loss", "epoch", "sum_to_n"),
  "bls_seta": Method(bls.bls_seta, "BLS over SeTa", "2604.04681", "batch loss", "epoch"),
  "central": Method(central.central, "Moderate coreset, the middle of a score", "-", "static score", "epoch"),
  "dual": Method(dual.dual, "DUAL with Beta sampling", "2502.06905", "static scores", "epoch", columns=dual.COLUMNS),
  "epsilon_greedy": Method(epsilon_greedy.epsilon_greedy, "Epsilon-greedy", "2111.12621", "loss", "epoch"),
  "es": Method(evolved.es, "ES, evolved sampling", "2509.23461", "loss", "batch"),
  "eswp": Method(evolved.eswp, "ESWP, evolved sampling with pruning", "2509.23461", "loss", "batch"),
  "full": Method(full.full, "Plain training", "-", "none", "epoch"),
  "infobatch": Method(infobatch.infobatch, "InfoBatch", "2303.04947", "loss", "epoch", "sum_to_n"),
  "kakurenbo": Method(kakurenbo.kakurenbo, "KAKURENBO", "2310.10102", "loss, correct, confidence", "epoch"),
  "loss": Method(loss_sampling.loss_sampling, "Sampling by loss", "2509.23461", "loss", "batch"),
  "order_dp": Method(order_dp.order_dp, "OrderDP", "2606.08574", "loss", "epoch"),
  "random": Method(random_rotation.random_rotation, "Random rotation", "-", "none", "epoch"),
  "random_static": Method(random_static.random_static, "Random subset", "-", "none", "epoch"),
  "rcap": Method(rcap.rcap, "RCAP", "2606.11761", "loss", "epoch"),
  "repb": Method(repb.repb, "RePB", "-", "loss, usage", "epoch", "sum_to_n"),
  "rho_loss": Method(
    rho_loss.rho_loss, "RHO-LOSS", "2206.07137", "loss, hold-out loss", "batch", columns=(rho_loss.COLUMN,)
  ),
  "rrd": Method(
    rrd.rrd,
    "RRD, representative then diverse, in turns",
    "2603.04981",
    "factors, usage",
    "epoch",
    columns=("representativeness", "rarity"),
  ),
  "rs2": Method(rs2.rs2, "RS2, repeated random sampling", "2305.18424", "none", "epoch"),
  "selective_backprop": Method(
    selective_backprop.selective_backprop, "Selective backprop", "1910.00762", "loss", "batch"
  ),
  "seta": Method(seta.seta, "SeTa", "2503.13385", "loss", "epoch"),
  "strata": Method(strata.strata, "CCS, coverage-centric coreset selection", "2210.15809", "static score", "epoch"),
  "top": Method(top.top, "The top of a score", "-", "static score", "epoch"),
  "ucb": Method(ucb.ucb, "UCB, upper confidence bound", "2111.12621", "loss", "epoch"),
}


def defaults(name: str) -> dict[str, Any]:
  """Returns the options of the method `name` with their defaults."""
  return options.keyword_defaults(_factory(name))


def weighting(name: str, wrapped_in: Collection[str] = ()) -> str:
  """Returns how a step uses the weights of the method `name` by default: "mean_one" or "sum_to_n".

  A wrapper around it that makes weights of its own decides.
  """
  of_method = METHODS[name].weighting if name in METHODS else "mean_one"
  return wrapping.weighting(wrapped_in) or of_method


def columns(name: str) -> tuple[str, ...]:
  """Returns the columns of the `SampleTable` that the method `name` reads: its own, and its option `column`, if any."""
  option = defaults(name).get("column")
  return (METHODS[name].columns if name in METHODS else ()) + ((option,) if option else ())


def create(
  name: str, table: SampleTable, epochs: int, wrapped_in: Mapping[str, Mapping[str, Any]] = {}, /, **settings: Any
) -> Selector:
  """Builds a selector.

  Args:
    name: a registered method, or the path of a user's own factory: `my_lab.my_module:my_selector`.
    table: what is known of the training set.
    epochs: how many the run has.
    wrapped_in: the wrappers and the options of each, see `wrapping.wrapped`; the first is the innermost.
    **settings: the method's options, see `defaults`.

  Raises:
    UserError: the name, an option, a value or the table is wrong.
  """
  factory = _factory(name)
  known = options.keyword_defaults(factory)
  options.check_settings("selector", name, settings, known)
  options.check_positive("epochs", epochs)
  _check_table(table)
  selector = factory(table, epochs, **settings)
  if not isinstance(selector, Selector):
    raise UserError(f"selector.name={name!r} must return a Selector, not {type(selector).__name__}")
  return wrapping.wrapped(selector, table, epochs, wrapped_in)


def _factory(name: str) -> Callable[..., Selector]:
  """Finds a method's factory by its registered name or by its path."""
  return options.named_or_imported("selector.name", name, {known: method.factory for known, method in METHODS.items()})


def _check_table(table: SampleTable) -> None:
  labels = np.asarray(table.labels)
  if labels.ndim != 1 or labels.size == 0 or not np.issubdtype(labels.dtype, np.integer):
    raise UserError(f"table.labels of shape {labels.shape} and type {labels.dtype} must be a list of whole numbers")
  for label in (labels.min(), labels.max()):
    if not 0 <= label < table.num_classes:
      raise UserError(f"table.labels has {label}, which is no class: num_classes={table.num_classes}")
  empty = np.flatnonzero(np.bincount(labels, minlength=table.num_classes) == 0)
  if empty.size:
    raise UserError(f"table.labels: class {empty[0]} has no sample")
  for name, column in table.columns.items():
    if np.shape(column) != labels.shape:
      raise UserError(f"table.columns[{name!r}] of shape {np.shape(column)} must have one value for each sample")
