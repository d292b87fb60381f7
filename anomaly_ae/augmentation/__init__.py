"""Changes to training images: variations that stay normal, corruption, planted defects."""
