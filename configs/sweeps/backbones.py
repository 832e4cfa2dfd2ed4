"""Full training, random rotation and RRD over models: arXiv 2603.04981, Table 3 and Fig. 5.

    python -m experiments.sweep --sweep=configs/sweeps/backbones.py:config=configs/cifar100.py,size=full \
        --workdir=runs/backbones

Table 3 has full training and RRD at 70 % kept. CIFAR-10: ResNet-18 96.1 and 96.1 %, ResNet-50 95.8 and 95.6 %.
CIFAR-100: ResNet-18 78.2 and 78.4 %, ResNet-50 79.1 and 79.1 %, VGG-16 73.9 and 74.0 %. Fig. 5 plots accuracy against
the keep fraction for VGG-16 on Tiny-ImageNet and a small ViT on CIFAR-10, without numbers.

Arguments: `config`, a file in configs/ (digits); `size`, its size (cpu); `features`, an array file of features for rrd
(pixels); `models=NAME+NAME` (the paper's with `size=full`, else two that suit two CPU cores); `seeds`. VGG-16 has the
paper's weight decay. The paper does not give the ViT's recipe; here it is AdamW at 1e-3.
"""

from typing import Any

from configs.sweeps import base

KEPT = (0.3, 0.5, 0.7)
MODELS = {"full": "resnet18+resnet50+vgg16+vit_small", "cpu": "mlp+resnet_patch"}
RECIPES: dict[str, tuple[dict[str, str], dict[str, Any]]] = {  # variants and fields of models with their own recipe
  "vgg16": ({}, {"optimizer.weight_decay": 1e-4}),
  "vit_small": ({"optimizer": "adamw"}, {"learning_rate": 1e-3}),
}


def get_sweep(arguments: str = "") -> base.Sweep:
  """Returns the sweep; `arguments` as above."""
  chosen = base.parse(arguments, config="configs/digits.py", size="cpu", models="", features="", seeds=3)
  models = []
  for name in (chosen["models"] or MODELS["full" if chosen["size"] == "full" else "cpu"]).split("+"):
    variants, fields = RECIPES.get(name, ({}, {}))
    models.append(base.Point(name, {"model": name, **variants}, fields))
  points = base.methods(("full",))
  for kept in KEPT:
    random, rrd = base.methods(("random", "rrd"), keep_fraction=kept)
    points += [random, base.with_features(rrd, chosen["features"])]
  return base.Sweep(f"{chosen['config']}:size={chosen['size']}", [models, points, base.seeds(chosen["seeds"])])
