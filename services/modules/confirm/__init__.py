"""Module confirm: decisions of people, with quorum, delegation, escalation and expiry; also those that workflows ask for."""
