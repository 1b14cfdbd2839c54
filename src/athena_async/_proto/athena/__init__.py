"""Generated from proto/athena."""
