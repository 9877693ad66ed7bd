"""What whoever works on Tidings runs, and nobody else needs."""
