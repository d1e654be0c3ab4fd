"""What makes other libraries run on Holdfast: one module for each, which alone imports it."""
