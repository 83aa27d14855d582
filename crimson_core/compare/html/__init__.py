"""Report pairs as HTML, for the Space and the HTML report of a leaderboard. Needs Jinja2 from the extra `report`."""
