"""Mixed sequence lengths on context groups of different sizes."""
