"""Random workflows whose outcome can be told beforehand: definitions, how modules answer, the laws of a history, an independent oracle.

Everything is drawn from one `random.Random`: a seed gives the same case everywhere (in memory, on real processes), and
Hypothesis's own `randoms()` draws and shrinks the very same cases.
"""
