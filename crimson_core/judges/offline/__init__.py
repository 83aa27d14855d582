"""A judge of rules and a lexicon: no model, no download, no network."""
