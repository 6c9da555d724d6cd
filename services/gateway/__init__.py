"""The gateway: everything over HTTP (commands, events, live streams, SQL, rules, modules, schemas, health, metrics).

It keeps no state. What it needs of the rest comes in as `ports.Ports`, put together in `services.processes.gateway`.
Reading order: `app` (what is mounted), `guard` and `keys` (who may come in), `problems` and `bodies` (what goes wrong),
then one file per noun.
"""
