"""What engines share that run a checkpoint on this machine."""
