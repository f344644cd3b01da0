"""x86: the schedules of processors with the instructions for narrow data of x86."""
