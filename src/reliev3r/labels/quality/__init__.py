"""Are these labels worth training on? Figures and a verdict from images and labels alone, never from ground truth."""
