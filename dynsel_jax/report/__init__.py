"""Tables, plots and pages about finished runs. Host-side; reads the files that commands leave behind, nothing else."""
