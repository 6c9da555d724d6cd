"""The Faust application: the chunk transport, its bookkeeping of what may be committed, the app and the watchdog.

The only place that knows Faust's insides. Start with `prefix` (pure), then `transport`, `app`, `worker`.
"""
