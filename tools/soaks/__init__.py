"""What tools/soak runs, beside the tests that it runs for longer."""
