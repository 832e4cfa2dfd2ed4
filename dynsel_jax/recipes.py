"""The fields of every config, and its variants: `--config=configs/NAME.py:key=value,key=value`.

    size=cpu|smoke       a run for two CPU cores, or one of seconds
    selector=NAME        a registered method, or your own: my_lab.mistakes:mistakes
    wrap=NAME+NAME       wrappers around the selector, the first innermost: annealed+class_balanced
    model=NAME           a registered model, or your own: my_lab.net:net
    task=NAME            classification, language_model, masked_image, regression, or your own: my_lab.task:task
    dataset=NAME         another data set than the file's, for example your own: my_lab.data:load
    optimizer=NAME, schedule=NAME
    features=NAME        the feature space of the factor scores that a method such as rrd reads:
                         backbone, clip, efficientnet, file, pixels, sentence
    proxy=NAME           the small network that selector=proxy trains first, a registered model

A variant replaces a section of the config, whose options depend on the name. Every other field, and every option, is a
flag: `--config.epochs=10`, `--config.selector.keep_fraction=0.3`, `--config.wrappers.annealed.last=0.1`.
"""

from collections.abc import Mapping
from typing import Any

from dynsel_jax.options import needs

with needs(__name__, "dynsel_jax[train]"):
  import ml_collections

from dynsel_jax import data, models, options, selectors, tasks
from dynsel_jax.data import documents, instructions, noise, text
from dynsel_jax.models.weights import MINILM
from dynsel_jax.offline import factor_stage, feature_registry, proxy_ranks, score_file
from dynsel_jax.selectors import proxy as proxy_method
from dynsel_jax.selectors import wrappers
from dynsel_jax.training import optimizers, schedules

__all__ = ["fine_tuning", "get_config", "name_proxy", "parse", "pretraining", "small_images", "texts"]

CHOICES = ("dataset", "features", "model", "optimizer", "proxy", "schedule", "selector", "task", "wrap")


def parse(variants: str, sizes: tuple[str, ...]) -> dict[str, str]:
  """Splits `key=value,key=value` into a dict, with `size` "full" unless it is named.

  Raises:
    UserError: a part is not `key=value`, a key is not a variant, or the size is neither "full" nor one of `sizes`.
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


def _model_options(name: str) -> dict[str, Any]:
  return {"dtype": "float32", **models.defaults(name)}


def _proxy(name: str, selector: str) -> dict[str, Any]:
  """Returns the section `proxy`, if the selector reads what its network finds."""
  if proxy_method.COLUMN in selectors.columns(selector):
    if name and ":" not in name:  # a dotted path is imported
      options.check_choice("proxy", name, models.MODELS)
    return {"proxy": proxy_ranks.defaults({"name": name, **(_model_options(name) if name else {})})}
  if name:
    raise options.UserError(f"proxy={name}: selector={selector} reads no ranks of a small network; leave it out")
  return {}


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
  proxy: str = "",
  wrap: str = "",
  dataset: str = "",
  task: str = "classification",
  of_texts: Mapping[str, Any] | None = None,
) -> ml_collections.ConfigDict:
  """Returns RRD's CIFAR recipe (arXiv 2603.04981, App. C) on the data set `name`, as the base of a benchmark's config.

  The config has the sections `features` and `factors` if `features` is given or the selector reads factor scores, and a
  section `wrappers` if `wrap` is given; a section `proxy` if the selector reads the ranks of a small network. `dataset`
  replaces `name`; `of_texts` has the options of a set of texts.
  """
  name = dataset or name
  config = ml_collections.ConfigDict(
    {
      "seed": 0,
      "dataset": {
        "name": name,
        "augmentations": () if of_texts is not None or dataset else ("crop", "flip"),
        "label_noise": noise.defaults(),
        **({"data_dir": "", **data.defaults(name)} if of_texts is None else of_texts),
      },
      "model": {"name": model, **_model_options(model)},
      "task": _choice(task, tasks.defaults(task)),
      "selector": _choice(selector, selectors.defaults(selector)),
      "optimizer": _choice(optimizer, optimizers.defaults(optimizer)),
      "schedule": _choice(schedule, schedules.defaults(schedule)),
      "scores": score_file.defaults(),
      "learning_rate": 0.1,  # the largest of the schedule
      "loss_normalization": "",  # divisor of a step's loss: "weight_sum" or "batch_size"; empty is the method's own
      "batch_size": 128,  # over all devices
      "meta_batch_size": 0,  # samples that a method which thins scores before a step; 0 is batch_size
      "eval_batch_size": 512,  # over all devices
      "epochs": 200,
      "match_steps": False,  # True raises the epochs until the run takes as many steps as full training
      "checkpoint_every_steps": 1000,  # 0 saves only at the end
      "loggers": (),  # "wandb": Weights & Biases, beside the run's own files and TensorBoard
      "cache_dir": "",  # for decoded images, features and scores; empty is $DYNSEL_CACHE or the user's cache folder
    }
  )
  # These signals cost something, so that a task gives them only to a method that reads them.
  if selector in selectors.METHODS and "logit_geometry" in config.task:
    config.task.logit_geometry = "nuclear_norm" in selectors.METHODS[selector].signal
  if not features and set(selectors.columns(selector)) & set(factor_stage.COLUMNS):
    features = "pixels" if of_texts is None else "sentence"
  if features:
    config.features = _choice(features, feature_registry.defaults(features))
    config.factors = factor_stage.defaults()
  config.update(_proxy(proxy, selector))
  if wrap:
    config.wrappers = _wrappers(tuple(wrap.split("+")))
  return config


def name_proxy(config: ml_collections.ConfigDict, name: str, **settings: Any) -> None:
  """Names the small network, with some of its options, in a config that has one and whose variants name none."""
  if "proxy" in config and not config.proxy.model.name:
    config.proxy.model = _choice(name, _model_options(name) | settings)


def small_images(name: str, variants: str, *, model: str = "resnet18") -> ml_collections.ConfigDict:
  """Returns RRD's CIFAR recipe with `model`; size=cpu is `resnet_patch` for 15 epochs, size=smoke for one.

  The paper states neither the first weights nor what is decayed. At full size they are what the code of the methods it
  compares with has, PyTorch's defaults: DeepCore 800ef76 and InfoBatch's example 1bb917e set neither. The small sizes
  have He's weights and decay matrices alone, as in the results on record.
  """
  chosen = parse(variants, ("cpu", "smoke"))
  size = chosen.pop("size")
  named: dict[str, Any] = {"model": model if size == "full" else "resnet_patch", **chosen}
  config = get_config(name, **named)
  if config.optimizer.name == "sgd":
    config.optimizer.nesterov = size != "full"  # the paper has plain momentum
    config.optimizer.decay_all = size == "full"  # with PyTorch's first weights as in DeepCore's and InfoBatch's code
  name_proxy(config, "resnet_patch", **({} if size == "full" else {"width": 16}))
  if size == "full":
    if "init" in config.model:
      config.model.init = "torch"
  else:
    config.epochs = 15 if size == "cpu" else 1
    if "factors" in config:  # takes seconds, and explains as much as the accelerator's 50 epochs with batches of 4096
      config.factors.update(epochs=2, batch_size=512, learning_rate=4e-3)
  return config


def texts(name: str, variants: str) -> ml_collections.ConfigDict:
  """Returns RRD's recipe for RSD-15K (arXiv 2603.04981, App. C): RoBERTa-base, AdamW at 2e-5, batch 16, 3 epochs.

  The paper states no schedule and no weight decay; these are usual ones of fine-tuning. size=cpu is MiniLM-L6 at 5e-5
  with batch 32; size=smoke is an epoch of a tiny BERT with random weights, which reads words and needs no weights. A
  batch has texts of similar length; `dataset.length_buckets=1` draws it from all texts, as the paper does.
  """
  chosen = parse(variants, ("cpu", "smoke"))
  size = chosen.pop("size")
  model = {"full": "roberta_base", "cpu": "minilm_l6", "smoke": "bert_tiny"}[size]
  named: dict[str, Any] = {"model": model, "optimizer": "adamw", "schedule": "linear", **chosen}
  config = get_config(name, **named, of_texts=text.defaults())
  folders = {"albert_base": "albert-base-v2", "bert_base": "bert-base-uncased", "roberta_base": "roberta-base"}
  folders["minilm_l6"] = MINILM
  pretrained = folders.get(config.model.name, "")
  config.dataset.tokenizer = pretrained
  if "weights" in config.model:
    config.model.weights = pretrained
  config.learning_rate = {"full": 2e-5, "cpu": 5e-5, "smoke": 1e-3}[size]
  config.batch_size = 16 if size == "full" else 32
  config.eval_batch_size = 128
  config.epochs = 1 if size == "smoke" else 3
  return config


def pretraining(name: str, variants: str) -> ml_collections.ConfigDict:
  """Returns a recipe for training a decoder on plain documents from random weights: AdamW, a cosine, 10 epochs.

  The rates of decay and the end of the schedule are usual ones for language models (arXiv 2005.14165, App. B). The
  decoder has 4.0 million parameters and reads 256 tokens of a vocabulary of 4,096 byte pairs. size=cpu is a fifth of it
  in all directions, for 5 epochs; size=smoke an epoch of a tiny one on bytes, without further libraries.
  """
  chosen = parse(variants, ("cpu", "smoke"))
  size = chosen.pop("size")
  named: dict[str, Any] = {"model": "decoder", "optimizer": "adamw", "task": "language_model", **chosen}
  config = get_config(name, **named, of_texts=documents.defaults())
  if config.optimizer.name == "adamw":
    config.optimizer.update(b2=0.95, weight_decay=0.1)
  if config.schedule.name == "cosine":
    config.schedule.warmup = 0.05
    config.schedule.end = 1e-4
  config.learning_rate = {"full": 1e-3, "cpu": 2e-3, "smoke": 5e-3}[size]
  config.batch_size = 64 if size == "full" else 32
  config.eval_batch_size = 64
  config.epochs = {"full": 10, "cpu": 5, "smoke": 1}[size]
  if size != "full":
    config.dataset.update(vocabulary=1024 if size == "cpu" else 0, max_length=128 if size == "cpu" else 64)
    if config.model.name == "decoder":
      small = {"width": 128, "layers": 2, "hidden": 352} if size == "cpu" else {"width": 32, "layers": 1, "hidden": 64}
      config.model.update(heads=2, groups=1, **small)
  return config


def fine_tuning(name: str, variants: str) -> ml_collections.ConfigDict:
  """Returns a recipe for supervised fine-tuning of a pretrained decoder on conversations: AdamW, 3 epochs.

  All weights are trained, at 1e-4 with batches of 32. size=cpu trains low-rank updates of rank 8 at 5e-4, on at most
  128 tokens with batches of 8, for one epoch; size=smoke an epoch of a tiny decoder with random weights on bytes.
  """
  chosen = parse(variants, ("cpu", "smoke"))
  size = chosen.pop("size")
  model = "decoder" if size == "smoke" else "decoder_pretrained"
  named: dict[str, Any] = {
    "model": model,
    "optimizer": "adamw",
    "schedule": "linear",
    "task": "language_model",
    **chosen,
  }
  config = get_config(name, **named, of_texts=instructions.defaults())
  if "weights" in config.model:
    config.model.weights = config.dataset.tokenizer = "smollm2-135m-instruct"
  if config.model.name == "decoder_pretrained" and size == "cpu":
    config.model.lora_rank = 8
  if config.model.name == "decoder" and size == "smoke":
    config.model.update(width=32, layers=1, heads=2, groups=1, hidden=64)
  config.learning_rate = {"full": 1e-4, "cpu": 5e-4, "smoke": 5e-3}[size]
  config.batch_size = 8 if size == "cpu" else 32
  config.eval_batch_size = 32
  config.epochs = 3 if size == "full" else 1
  config.dataset.max_length = 512 if size == "full" else 128
  return config
