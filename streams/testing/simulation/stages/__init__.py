"""The match and correlate stages under a seed: the real worker on a broker that lies, with rules, takeovers and an oracle.

Start with `clients` (Kafka's clients in memory) and `feed` (what Faust does), then `scenario`, `world` (one seeded run), `watch`
(what must hold at every record) and `verdict` (what must hold at the end).
"""
