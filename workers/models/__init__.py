"""What differs between architectures (one adapter record each) and the module every trainer-side role runs."""
