"""Static scores and orders of picks, fixed before or early in training, as functions over arrays.

`dynamics`, `windows` and `gradients` compute scores from a proxy run; `geometry`, `greedy` and `d2` work on features.
The methods `top`, `central` and `strata` turn a score into a subset.

The end of each score that marks hard samples, and the view of the samples it is meant for:

| score | hard | view | subset in its paper |
| --- | --- | --- | --- |
| `dynamics.el2n`, mean over epochs or runs | high | clean | `top` |
| `dynamics.margin`, mean over epochs (area under the margin) | low | as trained on | `strata` (CCS) |
| `dynamics.entropy` of a trained model | high | clean | `top` |
| `dynamics.forgetting` | high | as trained on | `top` |
| `windows.dyn_unc`, `windows.dual`, `windows.tdds` | high | as trained on | `top` |
| `gradients.grand`, `gradients.grand_last_layer` | high | clean | `top` |
| `gradients.moso` | neither; high is worth keeping | clean | `top`, by class |
| `geometry.distance_to_class_median` (moderate) | high | clean | `central` |
| `geometry.distance_to_prototype` | high | clean | `top` |
| `greedy.herding`, `greedy.k_center`, `d2.d2` | an order of picks | clean | `top`, of the order as a column |

Augmented and clean views give different scores: use one kind throughout a run.
"""
