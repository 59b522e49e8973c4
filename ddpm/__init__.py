"""Denoising diffusion of human motion: schedules, diffusion, samplers, networks and the training module."""
