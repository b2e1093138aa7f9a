"""What the administrator wrote: periods, amounts, limits, policies. Pure."""
