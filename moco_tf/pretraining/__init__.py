"""Pre-training: its config, model, diagnostics, run and report."""
