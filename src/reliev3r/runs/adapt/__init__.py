"""Adapting a pretrained network to footage, from frames alone; it is handed over only if held-out frames say so."""
