"""Model × recipe → checkpoint: stages as data, one loop, atomic checkpoints, exact resume."""
