"""The command line: one file a command; parse, call one study, print, exit code."""
