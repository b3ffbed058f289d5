"""Evaluation tasks: kNN, linear classification, fine-tuning, and the base of all tasks."""
