"""What theory and statistics say about noisy training, on plain numbers and arrays."""
