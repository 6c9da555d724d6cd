"""Module network: nodes and links, routes over them, and health from heartbeats."""
