"""Augmentation recipes; an address such as "moco:v2" names one."""
