"""Batch → named losses: everything that has weights."""
