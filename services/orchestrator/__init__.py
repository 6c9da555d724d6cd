"""The orchestrator: workflow definitions, and the engine that decides what happens next in an execution.

Pure but for `shell.py`. Read in this order: `definition` (what a workflow is), `definitions` (checking and parsing), `state`,
`evolve` (an event changes the state), `decide` (an input becomes events), `machine` (both as the log kernel wants them).

**How a decision is made.** `decide` opens a `Draft` on the execution's state. Each thing that happens is recorded as an event
and folded into the draft's state at once by the same `evolve` that a replay uses, so replay equals live by construction.
After the input itself has been recorded, `progress` walks from what changed outwards: start what is ready, end what is done.
Nothing but the state, the definition (pinned by its hash) and the input's time is looked at.
"""
