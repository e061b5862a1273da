"""What every room stands on: errors, keys, lazy imports, the frame of pages."""
