"""Documents in force on a control topic: rules and routes, with versions, who made them, when and why."""
