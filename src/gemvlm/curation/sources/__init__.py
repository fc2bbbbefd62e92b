"""Where samples come from, one file each."""
