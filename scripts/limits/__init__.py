"""`limits`: what stands where, and what is granted, reset or repaired."""
