"""Track experts, one adapter a file."""
