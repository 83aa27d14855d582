"""From a report corpus to a fine-tuned CRIMSON judge: candidate pairs, labels, LoRA, merged checkpoint."""
