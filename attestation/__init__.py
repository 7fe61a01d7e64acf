"""Evidence that a key lives in measured code on genuine hardware: made by workers, judged by everyone else."""
