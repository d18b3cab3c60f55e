"""What is wrong with the samples that a model is calibrated and judged on: pure functions of numbers."""
