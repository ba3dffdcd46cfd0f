"""Benchmarks as data: worlds x tasks x solvers x seeds in suite files, one record per cell."""
