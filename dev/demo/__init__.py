"""Show the whole pipeline on this machine, live."""
