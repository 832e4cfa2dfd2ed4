"""What finished runs left behind, as tables and pictures. Reads files only."""
