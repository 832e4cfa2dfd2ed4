"""A file per benchmark, each with `get_config(variants)`."""
