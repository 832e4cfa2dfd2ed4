"""Methods of dynamic data selection, one to a file, and what they are written with."""
