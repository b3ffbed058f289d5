"""Momentum Contrast (MoCo v1 and v2) for Keras 3 on TensorFlow."""
