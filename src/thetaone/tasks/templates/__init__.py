"""Task files that ``thetaone init`` writes: complete, commented, and run by the tests as written.

Nothing imports them; each is the user's from the first line on.
"""
