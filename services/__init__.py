"""What keeps state and answers: orchestrator, modules, history, gateway, shell, and the processes that wire them."""
