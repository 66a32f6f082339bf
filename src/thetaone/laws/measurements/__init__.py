"""The measured numbers: one file a law, each with its own generator and a fixed sample size."""
