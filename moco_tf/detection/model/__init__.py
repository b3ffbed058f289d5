"""Detectors: networks, heads, anchors, losses."""
