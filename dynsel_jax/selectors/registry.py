"""The methods by name, and `create`, the only place where a selector is built. Host-side."""

from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import numpy as np

from dynsel_jax import options
from dynsel_jax.options import UserError
from dynsel_jax.selectors import (
  bls,
  dual,
  epsilon_greedy,
  evolved,
  full,
  infobatch,
  kakurenbo,
  loss_sampling,
  moderate,
  order_dp,
  proxy,
  random_rotation,
  random_static,
  rcap,
  repb,
  rho_loss,
  rrd,
  rs2,
  selective_backprop,
  seta,
  stale_es,
  strata,
  top,
  ucb,
  uds,
  wrappers,
)
from dynsel_jax.types import LOSS_NORMALIZATIONS, SampleTable, Selector, Volume

__all__ = ["METHODS", "Method", "check_reads", "columns", "create", "defaults"]


class Method(NamedTuple):
  """A registered method."""

  factory: Callable[..., Selector]  # factory(table, epochs, *, options) -> Selector
  title: str
  arxiv: str  # "-" if there is no paper
  signal: str  # for people: "none", "loss", ...
  level: str  # "epoch", or "batch" if it thins meta-batches
  columns: tuple[str, ...] = ()  # of `SampleTable.columns` that it reads, beside the one named by its option `column`


METHODS: dict[str, Method] = {
  "bls_infobatch": Method(bls.bls_infobatch, "BLS over InfoBatch", "2604.04681", "batch loss", "epoch"),
  "bls_seta": Method(bls.bls_seta, "BLS over SeTa", "2604.04681", "batch loss", "epoch"),
  "central": Method(moderate.moderate, "Moderate coreset, the middle of a score", "-", "static score", "epoch"),
  "dual": Method(dual.dual, "DUAL with Beta sampling", "2502.06905", "static scores", "epoch", dual.COLUMNS),
  "epsilon_greedy": Method(epsilon_greedy.epsilon_greedy, "Epsilon-greedy", "2111.12621", "loss", "epoch"),
  "es": Method(evolved.es, "ES, evolved sampling", "2509.23461", "loss", "batch"),
  "eswp": Method(evolved.eswp, "ESWP, evolved sampling with pruning", "2509.23461", "loss", "batch"),
  "full": Method(full.full, "Plain training", "-", "none", "epoch"),
  "infobatch": Method(infobatch.infobatch, "InfoBatch", "2303.04947", "loss", "epoch"),
  "kakurenbo": Method(kakurenbo.kakurenbo, "KAKURENBO", "2310.10102", "loss, correct, confidence", "epoch"),
  "loss": Method(loss_sampling.loss_sampling, "Sampling by loss", "2509.23461", "loss", "batch"),
  "order_dp": Method(order_dp.order_dp, "OrderDP", "2606.08574", "loss", "epoch"),
  "proxy": Method(
    proxy.proxy, "What a small network found hard", "-", "a small network's ranks", "epoch", (proxy.COLUMN,)
  ),
  "random": Method(random_rotation.random_rotation, "Random rotation", "-", "none", "epoch"),
  "random_static": Method(random_static.random_static, "Random subset", "-", "none", "epoch"),
  "rcap": Method(rcap.rcap, "RCAP", "2606.11761", "loss", "epoch"),
  "repb": Method(repb.repb, "RePB", "-", "loss, usage", "epoch"),
  "rho_loss": Method(rho_loss.rho_loss, "RHO-LOSS", "2206.07137", "loss, hold-out loss", "batch", (rho_loss.COLUMN,)),
  "rrd": Method(
    rrd.rrd, "RRD, representative then diverse, in turns", "2603.04981", "factors, usage", "epoch", rrd.COLUMNS
  ),
  "rs2": Method(rs2.rs2, "RS2, repeated random sampling", "2305.18424", "none", "epoch"),
  "selective_backprop": Method(
    selective_backprop.selective_backprop, "Selective backprop", "1910.00762", "loss", "batch"
  ),
  "seta": Method(seta.seta, "SeTa", "2503.13385", "loss", "epoch"),
  "stale_es": Method(stale_es.stale_es, "ES drawn from the last losses", "2509.23461", "loss", "epoch"),
  "strata": Method(strata.strata, "CCS, coverage-centric coreset selection", "2210.15809", "static score", "epoch"),
  "top": Method(top.top, "The top of a score", "-", "static score", "epoch"),
  "ucb": Method(ucb.ucb, "UCB, upper confidence bound", "2111.12621", "loss", "epoch"),
  "uds": Method(uds.uds, "UDS, utility-diversity sampling", "2510.16882", "nuclear_norm, projection", "batch"),
}


def defaults(name: str) -> dict[str, Any]:
  """Returns the options of the method `name` with their defaults."""
  return options.keyword_defaults(_factory(name))


def columns(name: str) -> tuple[str, ...]:
  """Returns the columns of the `SampleTable` that the method `name` reads with its default options."""
  option = defaults(name).get("column")
  return (METHODS[name].columns if name in METHODS else ()) + ((option,) if option else ())


def create(
  name: str, table: SampleTable, epochs: int, wrapped_in: Mapping[str, Mapping[str, Any]] = {}, /, **settings: Any
) -> Selector:
  """Builds a selector.

  Args:
    name: a registered method, or the path of a user's own factory: `my_lab.my_module:my_selector`.
    table: the training set.
    epochs: of the run.
    wrapped_in: the wrappers and the options of each, see `wrappers.wrap`; the first is the innermost.
    **settings: the method's options, see `defaults`.

  Raises:
    UserError: the name, an option, a value or the table is wrong, or the table lacks what the method reads.
  """
  factory = _factory(name)
  options.check_settings("selector", name, settings, options.keyword_defaults(factory))
  options.check_positive("epochs", epochs)
  _check_table(table, epochs)
  try:
    selector = options.called("selector.name", name, factory, table, epochs, **settings)
    _check_selector(name, selector)
    if "keep_fraction" in (settings := {**options.keyword_defaults(factory), **settings}):
      selector = selector._replace(volume=_volume(factory, table, epochs, settings))
    selector = wrappers.wrap(selector, table, epochs, wrapped_in)
  except UserError as error:
    if table.labels is None and str(error).startswith("table.labels is None"):
      named = "+".join((name, *wrapped_in))
      by_class = settings.get("class_balanced", options.keyword_defaults(factory).get("class_balanced"))
      remedy = "set class_balanced=False" if by_class else "take a method that reads none"
      raise UserError(
        f"selector={named} reads labels, and the training set has none: give a class or a domain of each sample in"
        f" table.labels, or {remedy}"
      ) from None
    raise
  return selector


def check_reads(name: str, selector: Selector, table: SampleTable, given: Collection[str], giver: str) -> None:
  """Raises `UserError` if the selector reads a name that neither the table nor the task gives.

  Args:
    name: of the selector, with its wrappers, for the message.
    selector: built by `create`.
    table: the training set.
    given: names of the extras in the signals, for example "correct".
    giver: for the message: what the table and the task give, and which tasks give more.
  """
  held = {*table.columns, *given, *(["labels"] if table.labels is not None else [])}
  missing = [read for read in selector.reads if read not in held]
  if missing:
    raise UserError(f"selector={name} reads {', '.join(map(repr, missing))}: {giver}")


def _factory(name: str) -> Callable[..., Selector]:
  """Finds a method's factory by its registered name or by its path."""
  return options.named_or_imported("selector.name", name, {known: method.factory for known, method in METHODS.items()})


def _volume(factory: Callable[..., Selector], table: SampleTable, epochs: int, settings: Mapping[str, Any]) -> Volume:
  def at(keep_fraction: float) -> Selector:
    return factory(table, epochs, **{**settings, "keep_fraction": keep_fraction})

  return Volume(settings["keep_fraction"], at)


def _check_selector(name: str, selector: Any) -> None:
  if not isinstance(selector, Selector):
    raise UserError(f"selector.name={name!r} must return a Selector, not {type(selector).__name__}")
  options.check_choice(f"selector.name={name!r}: loss_normalization", selector.loss_normalization, LOSS_NORMALIZATIONS)


def _check_table(table: SampleTable, epochs: int) -> None:
  options.check_positive("table.num_samples", table.num_samples)
  if table.labels is not None:
    _check_labels(np.asarray(table.labels), table)
  for name, column in table.columns.items():
    by_epoch = name == proxy.COLUMN and np.ndim(column) == 2
    wanted = (table.num_samples, epochs) if by_epoch else (table.num_samples,)
    if np.shape(column) != wanted:
      of_epochs = f" in each of epochs={epochs}" if by_epoch else ""
      raise UserError(
        f"table.columns[{name!r}] has shape {np.shape(column)}; it must have one value for each of the"
        f" {table.num_samples} samples{of_epochs}"
      )


def _check_labels(labels: np.ndarray, table: SampleTable) -> None:
  if labels.shape != (table.num_samples,) or not np.issubdtype(labels.dtype, np.integer):
    raise UserError(
      f"table.labels has shape {labels.shape} and type {labels.dtype}; it must be {table.num_samples} integers"
    )
  for label in (labels.min(), labels.max()):
    if not 0 <= label < table.num_classes:
      raise UserError(f"table.labels contains {label}, outside [0, num_classes={table.num_classes})")
  empty = np.flatnonzero(np.bincount(labels, minlength=table.num_classes) == 0)
  if empty.size:
    raise UserError(f"table.labels contains no sample of class {empty[0]} (num_classes={table.num_classes})")
