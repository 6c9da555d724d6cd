"""Which records satisfy which conditions: globs over names, CEL over records, and the index over many matchers."""
