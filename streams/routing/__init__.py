"""Routing: filter, transform, deliver, retry in the order of keys, dead letters and their redrive."""
