"""What every room speaks: tensors with names, results, errors, files, settings, progress."""
