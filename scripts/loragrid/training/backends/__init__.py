"""What trains: TRL on a CPU or a GPU, unsloth on a CUDA GPU, behind one interface."""
