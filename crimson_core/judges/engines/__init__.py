"""Engines: they run the language models and APIs behind `ModelJudge`."""
