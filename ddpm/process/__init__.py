"""The diffusion process: schedules, predictions, losses, samplers, constraints."""
