"""Quality of generated motion without a trained network: features, distances, physics, memorisation."""
