"""What is known of poses and shapes before any image: adversaries, lifters, limits, mixtures and dictionaries."""
