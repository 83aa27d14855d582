"""Leaderboards: systems that are judged on the same test sets, compared with their uncertainty, and presented."""
