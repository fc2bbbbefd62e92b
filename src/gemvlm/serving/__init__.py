"""Answers over HTTP to people and programs, actions over websockets to robots: one set of limits, one queue."""
