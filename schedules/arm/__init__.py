"""ARM: the schedules of processors with NEON's instructions for narrow data."""
