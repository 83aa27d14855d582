"""Leaderboards: judge systems on the same test sets, compare them with uncertainty, and present the results."""
