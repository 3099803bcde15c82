"""The compute plan: GPU cards, memory, hours, and what each job asks for."""
