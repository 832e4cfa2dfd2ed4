"""The folder of a run: its files, lock, console and clock, and reading a finished run. Host-side."""
