"""Module trace: records of what happens while a plan or context is worked on, and what can be computed from them."""
