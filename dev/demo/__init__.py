"""`make demo`: the whole pipeline on this machine."""
