"""What the lab does to a running system, each disturbance one value together with its repair."""
