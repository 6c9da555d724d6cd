"""Webhooks: where they may go (`addresses`), how they are signed (`signing`), what an answer means (`outcomes`), and the client."""
