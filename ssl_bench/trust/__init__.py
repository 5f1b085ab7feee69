"""What is claimed is computed again from what is stored."""
