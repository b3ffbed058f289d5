"""Probes of an encoder, for pre-training and evaluation: features, kNN, linear classifiers."""
