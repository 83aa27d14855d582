"""Many pairs and systems: summaries, statistics, leaderboards, pages."""
