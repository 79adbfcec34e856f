"""The parts of the kit: one module per part, each with ``measure(settings)``, which yields rows."""
