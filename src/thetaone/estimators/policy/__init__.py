"""Gradients of a policy's expected return: an expectation over episodes."""
