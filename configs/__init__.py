"""One file per benchmark; each offers `get_config(variants)`."""
