"""Measurements of the product against what people use without it: ``make bench NAME=…``."""
