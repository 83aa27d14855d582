"""Report pairs as HTML: what the Space and the HTML report of a leaderboard share. Needs Jinja2, of the extra `report`."""
