"""Static scores and subsets, fixed before or early in training, as functions over arrays.

`dynamics`, `windows` and `gradients` compute scores from a proxy run; `geometry`, `greedy` and `d2` work on features;
`subsets` turns a score or an order of picks into a subset.

The end of each score that marks hard samples, and the view of the samples it is meant for:

| score | hard | view | subset in its paper |
| --- | --- | --- | --- |
| `dynamics.el2n`, mean over epochs or runs | high | clean | `subsets.top` |
| `dynamics.margin`, mean over epochs (area under the margin) | low | as trained on | `subsets.strata` (CCS) |
| `dynamics.entropy` of a trained model | high | clean | `subsets.top` |
| `dynamics.forgetting` | high | as trained on | `subsets.top` |
| `windows.dyn_unc`, `windows.dual`, `windows.tdds` | high | as trained on | `subsets.top` |
| `gradients.grand`, `gradients.grand_last_layer` | high | clean | `subsets.top` |
| `gradients.moso` | neither; high is worth keeping | clean | `subsets.top`, by class |
| `geometry.distance_to_class_median` (moderate) | high | clean | `subsets.central` |
| `geometry.distance_to_prototype` | high | clean | `subsets.top` |
| `greedy.herding`, `greedy.k_center`, `d2.d2` | an order of picks | clean | `subsets.members` |

Augmented and clean views give different scores: use one kind throughout a run.
"""
