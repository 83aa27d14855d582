"""Turns a report corpus into a fine-tuned CRIMSON judge: candidate pairs, labels, LoRA, merged checkpoint."""
