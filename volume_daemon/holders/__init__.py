"""Who holds a volume's device on this machine: reading `/proc` and `/sys`, and nothing else."""
