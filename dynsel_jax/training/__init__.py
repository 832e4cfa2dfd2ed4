"""Training on a changing subset: state, steps, devices, checkpoints, and `loop.train_and_evaluate(config, workdir)`."""
