"""Simulated places that know the truth about what they show."""
