"""What writes text for a judge that asks a language model."""
