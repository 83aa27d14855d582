"""Defines CRIMSON: pairs, evaluations, scores and prompts, without any judge, file or model."""
