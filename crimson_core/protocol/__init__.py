"""What CRIMSON is: report pairs, evaluations, the score, the prompt. It knows no judge, no file and no model."""
