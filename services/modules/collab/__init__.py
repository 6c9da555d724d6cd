"""Module collab: participants work together; they join and leave, share tasks, and decide by voting."""
