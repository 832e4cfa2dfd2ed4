"""The fields of every config, and its variants: `--config=configs/NAME.py:key=value,key=value`.

    size=cpu|smoke       a run for two CPU cores, or one of seconds
    selector=NAME        any registered method, or a dotted path to your own: my_lab.my_module:my_selector
    wrap=NAME+NAME       wrappers around the selector, the first innermost: annealed+class_balanced
    model=NAME, optimizer=NAME, schedule=NAME
    task=NAME            classification, regression, or a dotted path to your own: my_lab.my_task:task
    dataset=NAME         another data set than the file's, most usefully your own: my_lab.my_data:load
    features=NAME        where the factor scores come from that a method such as rrd reads:
                         backbone, clip, efficientnet, file, pixels, sentence

A model may also be named by the path of your own: my_lab.my_net:net. A variant chooses among things with options of
their own; every other field, and every option, is a flag:
`--config.selector.keep_fraction=0.3`, `--config.wrappers.annealed.last=0.1`.
"""

from collections.abc import Mapping
from typing import Any

import ml_collections

from dynsel_jax import data, models, options, selectors, tasks
from dynsel_jax.data import noise, text
from dynsel_jax.models.weights import MINILM
from dynsel_jax.offline import factor_stage, feature_registry, score_file
from dynsel_jax.selectors import wrappers
from dynsel_jax.training import optimizers, schedules

__all__ = ["get_config", "parse", "small_images", "texts"]

CHOICES = ("dataset", "features", "model", "optimizer", "schedule", "selector", "task", "wrap")


def parse(variants: str, sizes: tuple[str, ...]) -> dict[str, str]:
  """Splits `key=value,key=value` into a dict, with `size` "full" unless it is named.

  Raises:
    UserError: a part is not `key=value`, the key is not one of a config's variants, or the size is not one of `sizes`.
  """
  chosen = {"size": "full"}
  for part in filter(None, variants.split(",")):
    key, equals, value = part.partition("=")
    if not equals:
      raise options.UserError(f"config variant {part!r} is not key=value")
    options.check_choice("config variant", key, ("size", *CHOICES))
    chosen[key] = value
  options.check_choice("size", chosen["size"], ("full", *sizes))
  return chosen


def _choice(name: str, defaults: Mapping[str, Any]) -> ml_collections.ConfigDict:
  return ml_collections.ConfigDict({"name": name, **defaults})


def _wrappers(names: tuple[str, ...]) -> ml_collections.ConfigDict:
  sections = [wrappers.section(name) for name in names]
  if len(set(sections)) < len(sections):
    raise options.UserError(f"wrap={'+'.join(names)!r} names a wrapper twice")
  of_each = {section: wrappers.defaults(name) for section, name in zip(sections, names, strict=True)}
  return ml_collections.ConfigDict({"names": names, **of_each})


def get_config(
  name: str,
  *,
  model: str,
  selector: str = "full",
  optimizer: str = "sgd",
  schedule: str = "cosine",
  features: str = "",
  wrap: str = "",
  dataset: str = "",
  task: str = "classification",
  of_texts: bool = False,
) -> ml_collections.ConfigDict:
  """Returns RRD's CIFAR recipe (arXiv 2603.04981, App. C) on the data set `name`, as a base for the benchmark's file.

  The sections `features` and `factors` are present if `features` is named or the selector reads factor scores, and
  `wrappers`, with the options of each by its name, if `wrap` names any. `dataset` replaces `name`.
  """
  name = dataset or name
  config = ml_collections.ConfigDict(
    {
      "seed": 0,
      "dataset": {
        "name": name,
        "augmentations": () if of_texts or dataset else ("crop", "flip"),
        "label_noise": noise.defaults(),
        **(text.defaults() if of_texts else {"data_dir": "", **data.defaults(name)}),
      },
      "model": {"name": model, "dtype": "float32", **models.defaults(model)},
      "task": _choice(task, tasks.defaults(task)),
      "selector": _choice(selector, selectors.defaults(selector)),
      "optimizer": _choice(optimizer, optimizers.defaults(optimizer)),
      "schedule": _choice(schedule, schedules.defaults(schedule)),
      "scores": score_file.defaults(),
      "learning_rate": 0.1,  # the schedule's largest
      "loss_normalization": "",  # divisor of the weighted loss: "weight_sum" or "batch_size"; empty is the method's own
      "batch_size": 128,  # over all devices
      "eval_batch_size": 512,  # over all devices
      "epochs": 200,
      "match_steps": False,  # raises the epochs until the run takes as many steps as full training; see `setup.matched`
      "checkpoint_every_steps": 1000,  # 0 saves at the end alone
      "cache_dir": "",  # for decoded images, features and scores; by default in the user's cache folder
    }
  )
  if not features and set(selectors.columns(selector)) & set(factor_stage.COLUMNS):
    features = "sentence" if of_texts else "pixels"
  if features:
    config.features = _choice(features, feature_registry.defaults(features))
    config.factors = factor_stage.defaults()
  if wrap:
    config.wrappers = _wrappers(tuple(wrap.split("+")))
  return config


def small_images(name: str, variants: str, *, model: str = "resnet18") -> ml_collections.ConfigDict:
  """Returns RRD's CIFAR recipe with `model`; size=cpu is `resnet_patch` for 15 epochs, size=smoke is one of them."""
  chosen = parse(variants, ("cpu", "smoke"))
  size = chosen.pop("size")
  config = get_config(name, **{"model": model if size == "full" else "resnet_patch", **chosen})
  if config.optimizer.name == "sgd":
    config.optimizer.nesterov = size != "full"  # the paper names momentum alone
  if size != "full":
    config.epochs = 15 if size == "cpu" else 1
    if "factors" in config:  # seconds; explains as much as the 50 epochs of batches of 4096 that suit an accelerator
      config.factors.update(epochs=2, batch_size=512, learning_rate=4e-3)
  return config


def texts(name: str, variants: str) -> ml_collections.ConfigDict:
  """Returns RRD's recipe for RSD-15K (arXiv 2603.04981, App. C): RoBERTa-base, AdamW at 2e-5, batch 16, 3 epochs.

  The paper names no schedule and no decay: these are the usual ones of fine-tuning. size=cpu is MiniLM-L6 at 5e-5 and
  batch 32; size=smoke is an epoch of a tiny BERT with random weights and words for tokens, which needs no weights.
  Batches hold texts of similar length, unlike the paper's, which are drawn from all: `dataset.length_buckets=1`.
  """
  chosen = parse(variants, ("cpu", "smoke"))
  size = chosen.pop("size")
  model = {"full": "roberta_base", "cpu": "minilm_l6", "smoke": "bert_tiny"}[size]
  named = {"model": model, "optimizer": "adamw", "schedule": "linear", **chosen}
  config = get_config(name, **named, of_texts=True)
  folders = {"roberta_base": "roberta-base", "bert_base": "bert-base-uncased", "minilm_l6": MINILM}
  pretrained = folders.get(config.model.name, "")
  config.dataset.tokenizer = pretrained
  if "weights" in config.model:
    config.model.weights = pretrained
  config.learning_rate = {"full": 2e-5, "cpu": 5e-5, "smoke": 1e-3}[size]
  config.batch_size = 16 if size == "full" else 32
  config.eval_batch_size = 128
  config.epochs = 1 if size == "smoke" else 3
  return config
