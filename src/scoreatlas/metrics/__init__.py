"""What a benchmark measures: pure functions of tensors."""
