"""Networks of other systems, wrapped as ours through their installed packages (docs/adapt.md)."""
