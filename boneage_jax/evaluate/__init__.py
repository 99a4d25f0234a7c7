"""What a network's predictions are worth: metrics in months, the report and its plots."""
