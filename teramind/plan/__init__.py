"""What a run will compute, hold, write and take, told before it starts."""
