"""The sink under a seed: real sinks, a simulated broker and simulated tables, and what must be true of every offset.

Start with `world` (one seeded run). `traffic` makes the topics and knows what must become of them, `shelf` are the tables, `ports` the
way to both.
"""
