"""What the command line runs beside `synthesize`."""
