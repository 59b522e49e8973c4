"""What happens beside training: averages, pictures, curves, durable checkpoints."""
