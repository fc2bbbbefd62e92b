"""Benchmarks and rollouts to scores, each beside its blind baselines."""
