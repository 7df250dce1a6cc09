"""Tests with the secure stack. They are a package, so that the stack ends with its last test."""
