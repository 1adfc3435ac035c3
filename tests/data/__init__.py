"""Golden results, and the script that made them."""
