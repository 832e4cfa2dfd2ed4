"""The parts of `experiments.advise`: the pilot's plan, and what follows from its runs."""
