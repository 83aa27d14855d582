"""A judge of rules and a lexicon: no model, no download, no network."""

from crimson_core.judges.rules.judge import OfflineJudge

__all__ = ["OfflineJudge"]
