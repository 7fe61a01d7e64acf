"""`cocoon governance`: what a governor and rebuilders do, and what anybody can see of it."""
