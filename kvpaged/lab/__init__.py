"""What the book measures against: baselines and workloads."""
