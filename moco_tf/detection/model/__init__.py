"""Detectors: networks, heads, anchors, matching and losses."""
