"""The folder of a run: its files, lock, console and clock, and the reader of finished runs. Host-side."""
