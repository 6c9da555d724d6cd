"""What tests of machines, rules and routes share: example records, in-memory ports, a runner of machines without a broker."""
