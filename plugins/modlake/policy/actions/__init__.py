"""What is done about an image, and how it is taken back."""
