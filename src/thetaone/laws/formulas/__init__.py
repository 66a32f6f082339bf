"""The predicted numbers: plain arithmetic, one file a law, no torch."""
