"""Training: model, objectives, optimizer, loop, gradients and checkpoints."""
