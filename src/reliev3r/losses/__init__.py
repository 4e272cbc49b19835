"""Pure loss functions and their sum; the weak ones never see ground truth."""
