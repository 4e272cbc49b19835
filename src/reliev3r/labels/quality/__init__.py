"""Are these labels worth training on? LabelFigures and a verdict from images and labels alone, never from ground truth."""
