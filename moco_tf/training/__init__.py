"""Training on any strategy: loop, plan, callbacks, checkpoints."""
