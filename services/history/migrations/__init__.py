"""The schema as numbered SQL files, applied in order, each once. A file never changes after a release."""
