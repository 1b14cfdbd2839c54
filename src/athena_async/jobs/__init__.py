"""A resumable run over many files."""
