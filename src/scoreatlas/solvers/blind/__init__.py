"""Solvers, one paper a file."""
