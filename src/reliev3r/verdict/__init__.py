"""Did an adaptation help? Judged without ground truth, and by evidence that the labels had no part in."""
